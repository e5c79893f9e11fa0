//! `GET /audience/count`: counts the users in some segments and not in others.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use super::overlap::OverlapSegment;
use crate::domain::{SegmentName, Window};
use crate::estimator::overlap::Audience;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::query::{AUDIENCE_PARAMETERS, Parameters, QueryParams, audience};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;
use crate::http::table::{CsvWriter, Table, json_list};

/// The number of users in an audience.
#[derive(Serialize, ToSchema)]
struct AudienceAnswer<'a> {
    /// The users are in each of these segments.
    #[schema(value_type = Vec<schemas::SegmentName>, max_items = 8)]
    all: Vec<&'a str>,
    /// The users are in at least one of these segments, unless it is empty.
    #[schema(value_type = Vec<schemas::SegmentName>, max_items = 8)]
    any: Vec<&'a str>,
    /// The users are in none of these segments.
    #[schema(value_type = Vec<schemas::SegmentName>, max_items = 7)]
    none: Vec<&'a str>,
    /// The number of users.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    /// The number of users in each segment, in the order of `all`, `any` and `none`.
    #[schema(min_items = 1, max_items = 8)]
    segments: Vec<OverlapSegment<'a>>,
    #[serde(flatten)]
    as_of: AsOf,
}

impl Table for AudienceAnswer<'_> {
    const FILE_NAME: &'static str = "audience";

    fn as_of(&self) -> &str {
        self.as_of.as_of()
    }

    /// Writes one row.
    fn write(&self, csv: &mut CsvWriter) {
        let columns = ["all", "any", "none", "count"].into_iter().chain(Accuracy::COLUMNS).chain(["unknown"]);
        csv.row(columns.chain(AsOf::COLUMNS));
        let [all, any, none] = [&self.all, &self.any, &self.none].map(|names| json_list(names));
        let unknown = json_list(&OverlapSegment::unknown(&self.segments));
        let [all, any, none, unknown] = [&all, &any, &none, &unknown].map(|list| list.as_str().into());
        let counted = [all, any, none, self.count.into()].into_iter().chain(Accuracy::cells(Some(&self.accuracy)));
        csv.row(counted.chain([unknown]).chain(self.as_of.cells()));
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AudienceQuery {
    /// Count users in each of these segments, as `all=a&all=b`. Required without `any`. `all`, `any` and `none` have 1
    /// to 8 different segments together.
    #[param(inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode, example = json!(["sports"]))]
    all: Vec<SegmentName<'static>>,
    /// Count users in at least one of these segments. Required without `all`.
    #[param(
        inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode,
        example = json!(["news", "blogs"])
    )]
    any: Vec<SegmentName<'static>>,
    /// Count users in none of these segments.
    #[param(inline, value_type = Option<schemas::AudienceSegments>, style = Form, explode, example = json!(["premium"]))]
    none: Vec<SegmentName<'static>>,
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for AudienceQuery {
    const NAMES: &'static [&'static str] = &["all", "any", "none", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let names = AUDIENCE_PARAMETERS.map(|parameter| query.all(parameter).collect::<Vec<_>>());
        let Audience { all, any, none } = audience(names.each_ref().map(|names| &names[..]))?;
        if all.is_empty() && any.is_empty() {
            return Err(Problem::invalid_field("all", "must be given, unless any is given"));
        }
        Ok(Self { all, any, none, window: query.window(state)? })
    }
}

/// Count the users in some segments and not in others.
///
/// Counts the users who are in all segments of `all`, in at least one of `any`, and in none of `none`. The number is
/// exact, unless a segment keeps a sample of its users. An unknown segment counts 0 and has `known: false`. In CSV,
/// `unknown` lists these names. The number is read as an overlap is: for the time when the read began, in some seconds
/// for millions of users, and within the same limits.
#[utoipa::path(
    get,
    path = "/audience/count",
    operation_id = "count_audience",
    tag = "counts",
    params(AudienceQuery, FormatParam),
    responses(
        (status = 200, description = "The number of users.", content(
            (AudienceAnswer = "application/json", example = json!({
                "all": ["sports"],
                "any": ["news", "blogs"],
                "none": ["premium"],
                "count": 9,
                "exact": true,
                "segments": [
                    { "segment": "sports", "count": 42, "exact": true, "known": true },
                    { "segment": "news", "count": 30, "exact": true, "known": true },
                    { "segment": "blogs", "count": 5, "exact": true, "known": true },
                    { "segment": "premium", "count": 0, "exact": true, "known": false },
                ],
                "window_seconds": 604800,
                "as_of": "2026-11-22T10:00:00.000Z",
            })),
            (String = "text/csv", example = json!(concat!(
                "all,any,none,count,exact,error_95,unknown,window_seconds,as_of\r\n",
                "\"[\"\"sports\"\"]\",\"[\"\"news\"\",\"\"blogs\"\"]\",\"[\"\"premium\"\"]\",",
                "9,true,,\"[\"\"premium\"\"]\",604800,2026-11-22T10:00:00.000Z\r\n",
            ))),
        )),
        responses::OverlapProblems,
    )
)]
pub async fn count(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    TableQuery(AudienceQuery { all, any, none, window }, responder): TableQuery<AudienceQuery>,
) -> Result<Response> {
    let now = Arc::clone(&state).shared_now();
    let audience = Audience { all, any, none };
    let (counted, as_of) = state.overlaps.count(&audience, window, now).await?;
    let segments: Vec<_> = audience.segments().zip(counted.counts).collect();
    Ok(responder.respond(&AudienceAnswer {
        all: names(&audience.all),
        any: names(&audience.any),
        none: names(&audience.none),
        count: counted.count.count(),
        accuracy: counted.count.into(),
        segments: OverlapSegment::of_each(&state, &segments).await?,
        as_of: AsOf::new(window, as_of),
    }))
}

fn names<'a>(segments: &'a [SegmentName<'static>]) -> Vec<&'a str> {
    segments.iter().map(SegmentName::as_str).collect()
}
