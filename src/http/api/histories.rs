//! `GET /history`: returns the past counts of several segments.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::history::{HistoryQuery, Point};
use crate::domain::SegmentName;
use crate::estimator::history::History;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;
use crate::http::table::{Cell, CsvWriter, Table};

const MAX_SEGMENTS: usize = 20;
/// The most points of all histories together: 20 of the default step have this many.
const MAX_POINTS: u64 = 8_020;

schemas::schema_type!(SegmentNames = schemas::segments(1, MAX_SEGMENTS));

/// The past counts of segments.
#[derive(Serialize, ToSchema)]
struct Histories {
    /// A history for each segment, in the order of the query.
    #[schema(min_items = 1, max_items = 20)]
    histories: Vec<OneHistory>,
    /// The start of the first step.
    #[schema(format = DateTime)]
    from: String,
    /// The start of the last step.
    #[schema(format = DateTime)]
    to: String,
    /// The length of each step.
    #[schema(minimum = 1)]
    step_seconds: u64,
    /// The time of the answer, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

impl Table for Histories {
    const FILE_NAME: &'static str = "histories";

    fn as_of(&self) -> &str {
        &self.as_of
    }

    fn write(&self, csv: &mut CsvWriter) {
        csv.row(["segment", "known"].into_iter().chain(Point::COLUMNS).chain(["error", "as_of"]));
        for OneHistory { segment, known, points, error } in &self.histories {
            let mut row = |point: [Cell<'_>; 6]| {
                let segment = [segment.as_str().into(), (*known).into()];
                csv.row(segment.into_iter().chain(point).chain([(*error).into(), self.as_of().into()]));
            };
            match points {
                Some(points) => points.iter().for_each(|point| row(point.cells())),
                None => row([const { None::<u64> }; 6].map(Cell::from)),
            }
        }
    }
}

/// The history of one of several segments.
#[derive(Serialize, ToSchema)]
struct OneHistory {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
    /// A point for each step, the earliest first; null if they are unknown, with the reason in `error`.
    #[schema(required, min_items = 1, max_items = 2000)]
    points: Option<Vec<Point>>,
    /// Why the points are unknown: the key of the history in Redis belongs to another program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'static str>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoriesQuery {
    /// A segment's name. Repeat the parameter for up to 20 segments.
    #[param(inline, value_type = SegmentNames, example = json!(["sports", "news"]))]
    segment: Vec<SegmentName<'static>>,
    #[param(ignore)]
    range: HistoryQuery,
}

impl QueryParams for HistoriesQuery {
    const NAMES: &'static [&'static str] = &["segment", "from", "to", "step"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let segment = query.segments(1, MAX_SEGMENTS)?;
        Ok(Self { segment, range: HistoryQuery::parse(query, state)? })
    }
}

/// Get the past counts of up to 20 segments.
///
/// All have the same steps, as the history of one segment, and together at most 8,020 points. If the key of a history in
/// Redis belongs to another program, its points are null with an `error`, and the others are returned.
#[utoipa::path(
    get,
    path = "/history",
    operation_id = "segment_histories",
    tag = "counts",
    params(HistoriesQuery, HistoryQuery, FormatParam),
    responses(
        (status = 200, description = "The histories.", content(
            (Histories = "application/json", example = json!({
                "histories": [
                    { "segment": "sports", "known": true, "points": [{
                        "at": "2026-11-22T10:00:00.000Z", "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T11:00:00.000Z",
                        "sampled_at": "2026-11-22T10:00:00.000Z", "count": 42, "exact": true,
                    }] },
                    { "segment": "nwes", "known": false, "points": [{
                        "at": "2026-11-22T10:00:00.000Z", "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T11:00:00.000Z",
                        "sampled_at": null, "count": null,
                    }] },
                ],
                "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z", "step_seconds": 3600,
                "as_of": "2026-11-22T10:24:07.310Z",
            })),
            (String = "text/csv", example = json!(concat!(
                "segment,known,from,to,sampled_at,count,exact,error_95,error,as_of\r\n",
                "sports,true,2026-11-22T10:00:00.000Z,2026-11-22T11:00:00.000Z,2026-11-22T10:00:00.000Z,42,true,,,2026-11-22T10:24:07.310Z\r\n",
                "nwes,false,2026-11-22T10:00:00.000Z,2026-11-22T11:00:00.000Z,,,,,,2026-11-22T10:24:07.310Z\r\n",
            ))),
        )),
        responses::CountProblems,
    )
)]
pub async fn histories(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    TableQuery(HistoriesQuery { segment: segments, range }, responder): TableQuery<HistoriesQuery>,
) -> Result<Response> {
    const NOT_A_HISTORY: &str = "the key of the history in Redis belongs to another program";
    let now = state.synced_now().await?;
    let range = range.resolve(now, &state.history)?;
    let points = segments.len() as u64 * History::steps(range.from, range.to, range.step);
    if points > MAX_POINTS {
        let why = format!("gives {points} points in all, and the maximum is {MAX_POINTS}; choose a longer step");
        return Err(Problem::invalid_field("step", why));
    }
    let points = state.history.of_each(&segments, range.from, range.to, range.step).await?;
    let has_samples = points
        .iter()
        .map(|points| points.as_ref().is_ok_and(|points| points.iter().any(|point| point.count.is_some())));
    let known = state.estimator.are_known(&segments.iter().zip(has_samples).collect::<Vec<_>>()).await?;
    let histories = segments.iter().zip(points).zip(known).map(|((segment, points), known)| {
        let (points, error) = match points {
            Ok(points) => (Some(points.iter().map(Point::from).collect()), None),
            Err(_) => (None, Some(NOT_A_HISTORY)),
        };
        OneHistory { segment: segment.to_string(), known, points, error }
    });
    let [from, to] = range.step_starts();
    Ok(responder.respond(&Histories {
        histories: histories.collect(),
        from,
        to,
        step_seconds: range.step.as_secs(),
        as_of: now.to_string(),
    }))
}
