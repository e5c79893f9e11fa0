//! `GET /counts`: counts the users of several segments.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::as_of::AsOf;
use super::segments::SegmentCount;
use crate::domain::{SegmentName, Window};
use crate::estimator::CountedSegment;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::Result;
use crate::http::state::AppState;
use crate::http::table::{CsvWriter, Table};

const MAX_SEGMENTS: usize = 100;

schemas::schema_type!(SegmentNames = schemas::segments(1, MAX_SEGMENTS));

/// Counts of segments.
#[derive(Serialize, ToSchema)]
struct Counts {
    /// A count for each segment, in the order of the query.
    counts: Vec<SegmentCount>,
    #[serde(flatten)]
    as_of: AsOf,
}

impl Table for Counts {
    const FILE_NAME: &'static str = "counts";

    fn as_of(&self) -> &str {
        self.as_of.as_of()
    }

    fn write(&self, csv: &mut CsvWriter) {
        SegmentCount::write_each(&self.counts, &self.as_of, csv);
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CountsQuery {
    /// A segment's name. Repeat the parameter for up to 100 segments.
    #[param(inline, value_type = SegmentNames, example = json!(["sports", "news"]))]
    segment: Vec<SegmentName<'static>>,
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for CountsQuery {
    const NAMES: &'static [&'static str] = &["segment", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self { segment: query.segments(1, MAX_SEGMENTS)?, window: query.window(state)? })
    }
}

/// Count the users in up to 100 segments.
///
/// The counts are all for the same time, and exact unless a segment keeps a sample of its users. An unknown segment
/// counts 0 and has `known: false`. If the key of a segment in Redis belongs to another program, its count is null with
/// an `error`, and the others are counted.
#[utoipa::path(
    get,
    path = "/counts",
    operation_id = "count_segments",
    tag = "counts",
    params(CountsQuery, FormatParam),
    responses(
        (status = 200, description = "The counts.", content(
            (Counts = "application/json", example = json!({
                "counts": [
                    {
                        "segment": "sports", "known": true, "count": 42, "exact": true, "change_1d": { "absolute": -1, "relative": -0.0233, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                        "change_7d": { "absolute": 2, "relative": 0.05, "from": "2026-11-15T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                    },
                    {
                        "segment": "news", "known": true, "count": 7, "exact": true, "change_1d": { "absolute": 2, "relative": 0.4, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                        "change_7d": null,
                    },
                ],
                "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
            })),
            (String = "text/csv", example = json!(concat!(
                "segment,known,count,exact,error_95,error,change_1d_absolute,change_1d_absolute_error_95,change_1d_relative,change_1d_from,change_1d_to,change_7d_absolute,change_7d_absolute_error_95,change_7d_relative,change_7d_from,change_7d_to,window_seconds,as_of\r\n",
                "news,true,7,true,,,2,,0.4,2026-11-21T10:00:00.000Z,2026-11-22T10:00:00.000Z,,,,,,604800,2026-11-22T10:00:00.000Z\r\n",
            ))),
        )),
        responses::CountProblems,
    )
)]
pub async fn counts(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    TableQuery(CountsQuery { segment: segments, window }, responder): TableQuery<CountsQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let counts = state.estimator.estimate_each(segments, window, now).await?;
    let has_users = |counted: &CountedSegment| counted.count.is_some_and(|count| count.count() > 0);
    let names: Vec<_> = counts.iter().map(|counted| (&counted.segment, has_users(counted))).collect();
    let known = state.estimator.are_known(&names).await?;
    let counts = counts.into_iter().zip(known).map(|(counted, known)| SegmentCount::from(counted).with_known(known));
    Ok(responder.respond(&Counts { counts: counts.collect(), as_of: AsOf::new(window, now) }))
}
