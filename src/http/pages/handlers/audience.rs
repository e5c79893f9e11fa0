//! The handler of the page that counts an audience.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;

use super::super::audience::{self, CountedAudience, Definition};
use super::super::auth::PageAuth;
use super::super::curl::BaseUrl;
use super::super::error::FormProblem;
use super::super::response::html;
use super::choice::{check_number, find_unknown, problem_of, suggestions, typed_names};
use crate::domain::{SegmentName, Window};
use crate::estimator::overlap::Audience;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::query::{self, AUDIENCE_PARAMETERS, LenientQuery, Parameters, QueryParams};
use crate::http::problem::Result;
use crate::http::state::AppState;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AudiencePageQuery {
    /// Users are in each of these segments. Without `all` and `any`, the page is a form. Empty values are ignored.
    #[param(inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode, example = json!(["sports"]))]
    all: Vec<String>,
    /// Users are in at least one of these segments.
    #[param(inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode, example = json!(["news", "blogs"]))]
    any: Vec<String>,
    /// Users are in none of these segments.
    #[param(inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode, example = json!(["premium"]))]
    none: Vec<String>,
    /// A window shorter than the configured one.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for AudiencePageQuery {
    const NAMES: &'static [&'static str] = &["all", "any", "none", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let [all, any, none] = AUDIENCE_PARAMETERS.map(|parameter| typed_names(query, parameter));
        Ok(Self { all, any, none, window: query.window(state)? })
    }
}

/// Count an audience.
///
/// The page has the number of users in some segments and not in others, for people.
#[utoipa::path(
    get,
    path = "/pages/audience",
    operation_id = "page_audience",
    tag = "pages",
    params(AudiencePageQuery),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), responses::OverlapPageProblems)
)]
pub async fn audience(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    LenientQuery(AudiencePageQuery { all, any, none, window }): LenientQuery<AudiencePageQuery>,
) -> std::result::Result<Response, FormProblem> {
    let names = [&all, &any, &none].map(|names| names.iter().map(String::as_str).collect());
    let mut definition = Definition {
        names,
        suggestions: Vec::new(),
        window,
        configured: state.estimator.window(),
        is_bounded: state.estimator.is_bounded(),
    };
    if !definition.is_complete() {
        definition.suggestions = suggestions(&state).await?;
        return Ok(html(audience::page(&definition, None, &base_url)));
    }
    let refused = |problem, definition: &_| FormProblem::new(problem, audience::form(definition));
    let (audience, segments) = chosen(&definition).map_err(|problem| refused(problem, &definition))?;
    match count(&state, &audience, &segments, &mut definition).await {
        Ok(counted) => Ok(html(audience::page(&definition, Some(&counted), &base_url))),
        Err(problem) => Err(refused(problem, &definition)),
    }
}

/// Returns the audience and all of its segments.
fn chosen(definition: &Definition<'_>) -> Result<(Audience, Vec<SegmentName<'static>>)> {
    check_number(&definition.names.concat())?;
    let audience = query::audience(definition.names.each_ref().map(|names| &names[..]))?;
    let segments = audience.segments().cloned().collect();
    Ok((audience, segments))
}

/// Counts `audience`, which has `segments`, and adds the suggestions.
async fn count<'a>(
    state: &Arc<AppState>,
    audience: &Audience,
    segments: &'a [SegmentName<'static>],
    definition: &mut Definition<'_>,
) -> Result<CountedAudience<'a>> {
    // First, because it is cheap: if it is refused, nothing was counted in vain.
    definition.suggestions = suggestions(state).await?;
    let count = state.overlaps.count(audience, definition.window, Arc::clone(state).shared_now()).await;
    let (count, now) = count.map_err(problem_of)?;
    let unknown = find_unknown(state, segments, &count.counts).await?;
    Ok(CountedAudience { count, now, unknown })
}
