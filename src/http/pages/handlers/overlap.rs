//! The handler of the page that compares segments.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;

use super::super::auth::PageAuth;
use super::super::curl::BaseUrl;
use super::super::error::FormProblem;
use super::super::overlap::{self, Comparison, Selection};
use super::super::response::html;
use super::choice::{check_number, find_unknown, problem_of, suggestions, typed_names};
use crate::domain::{SegmentName, Window};
use crate::estimator::overlap::Overlaps;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::query::{self, LenientQuery, Parameters, QueryParams};
use crate::http::problem::Result;
use crate::http::state::AppState;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OverlapPageQuery {
    /// The segments: 2 to 8. With fewer, the page is a form. Empty values are ignored.
    #[param(inline, value_type = schemas::OverlapSegments, style = Form, explode, example = json!(["sports", "news"]))]
    segment: Vec<String>,
    /// A window shorter than the configured one.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for OverlapPageQuery {
    const NAMES: &'static [&'static str] = &["segment", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let segment = typed_names(query, "segment");
        Ok(Self { segment, window: query.window(state)? })
    }
}

/// Compare segments.
///
/// The page has the number of users that they have in common, and in each combination of them, for people.
#[utoipa::path(
    get,
    path = "/pages/overlap",
    operation_id = "page_overlap",
    tag = "pages",
    params(OverlapPageQuery),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), responses::OverlapPageProblems)
)]
pub async fn overlap(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    LenientQuery(OverlapPageQuery { segment: names, window }): LenientQuery<OverlapPageQuery>,
) -> std::result::Result<Response, FormProblem> {
    let (names, configured) = (names.iter().map(String::as_str).collect(), state.estimator.window());
    let mut selection =
        Selection { names, suggestions: Vec::new(), window, configured, is_bounded: state.estimator.is_bounded() };
    if selection.names.len() < Overlaps::MIN_SEGMENTS {
        selection.suggestions = suggestions(&state).await?;
        return Ok(html(overlap::page(&selection, None, &base_url)));
    }
    let refused = |problem, selection: &_| FormProblem::new(problem, overlap::form(selection));
    let segments = chosen(&selection.names).map_err(|problem| refused(problem, &selection))?;
    match compare(&state, &segments, &mut selection).await {
        Ok(comparison) => Ok(html(overlap::page(&selection, Some(&comparison), &base_url))),
        Err(problem) => Err(refused(problem, &selection)),
    }
}

fn chosen(names: &[&str]) -> Result<Vec<SegmentName<'static>>> {
    check_number(names)?;
    query::different_segments(names.iter().copied())
}

/// Compares `segments` and adds the suggestions.
async fn compare<'a>(
    state: &Arc<AppState>,
    segments: &'a [SegmentName<'static>],
    selection: &mut Selection<'_>,
) -> Result<Comparison<'a>> {
    // First, because it is cheap: if it is refused, no overlap was computed in vain.
    selection.suggestions = suggestions(state).await?;
    let overlap = state.overlaps.overlap(segments, selection.window, Arc::clone(state).shared_now()).await;
    let (overlap, now) = overlap.map_err(problem_of)?;
    let unknown = find_unknown(state, segments, &overlap.counts).await?;
    Ok(Comparison { overlap, now, unknown })
}
