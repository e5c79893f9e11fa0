//! `GET /segments/{name}/history`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::segments::segment_of;
use crate::domain::Window;
use crate::estimator::history::{self, History};
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Read};
use crate::http::extract::query::RawQuery;
use crate::http::json::json;
use crate::http::problem::{Problem, Result};

/// What is given when nobody says from when.
const USUAL_SPAN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How many users a segment had over time.
#[derive(Serialize, ToSchema)]
struct SegmentHistory {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// When the first step begins.
    #[schema(format = DateTime)]
    from: String,
    /// When the last step begins.
    #[schema(format = DateTime)]
    to: String,
    /// How long each step is.
    #[schema(minimum = 1)]
    step_seconds: u64,
    /// The moment of the answer, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
    /// A point for each step, the earliest first.
    #[schema(min_items = 1, max_items = 2000)]
    points: Vec<Point>,
}

/// A segment's size in a step of time.
#[derive(Serialize, ToSchema)]
struct Point {
    /// When the step begins.
    #[schema(format = DateTime)]
    at: String,
    /// The last count that was sampled in the step; null if none was.
    #[schema(required)]
    count: Option<u64>,
}

impl From<&history::Point> for Point {
    fn from(&history::Point { at, count }: &history::Point) -> Self {
        Self { at: at.to_string(), count }
    }
}

/// How many users a segment had over time.
///
/// The counts of all segments are sampled at intervals, every hour unless the operator has set another, and kept for 13 months.
/// Each step has a point, which is the last sample in it. Where there was none, it is null: nobody knows, or nobody was in the
/// segment.
#[utoipa::path(
    get,
    path = "/segments/{name}/history",
    operation_id = "segment_history",
    tag = "counts",
    params(
        (
            "name" = inline(schemas::SegmentName),
            Path,
            description = "The segment's name, percent-encoded, as for a count.",
            example = json!("sports")
        ),
        (
            "from" = inline(Option<schemas::Time>),
            Query,
            description = "When the first step begins, or a moment in it. Without it, 14 days before `to`.",
            example = json!("2026-11-08T10:00:00Z")
        ),
        (
            "to" = inline(Option<schemas::Time>),
            Query,
            description = "A moment in the last step. Without it, now.",
            example = json!("1795341600")
        ),
        (
            "step" = inline(Option<schemas::Window>),
            Query,
            description = "How long a step is: a multiple of the interval that is sampled at. Steps begin at its multiples since \
                           1970-01-01T00:00:00Z. Without it, it is long enough for about 400 points or fewer. There can't be more than \
                           2,000.",
            example = json!("1h")
        ),
    ),
    responses(
        (status = 200, description = "The history.", body = SegmentHistory, example = json!({
            "segment": "sports", "from": "2026-11-22T08:00:00.000Z", "to": "2026-11-22T10:00:00.000Z", "step_seconds": 3600,
            "as_of": "2026-11-22T10:24:07.310Z", "points": [
                { "at": "2026-11-22T08:00:00.000Z", "count": 40 },
                { "at": "2026-11-22T09:00:00.000Z", "count": null },
                { "at": "2026-11-22T10:00:00.000Z", "count": 42 },
            ],
        })),
        problems::OfACount,
    )
)]
pub async fn of_segment(
    _: May<Read>,
    State(state): State<Arc<AppState>>,
    name: std::result::Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response> {
    let segment = segment_of(name)?;
    let query = query.knowing("a history", &["from", "to", "step"])?;
    let (from, to) = (query.time("from")?, query.time("to")?);
    let step = query.one("step", |text| step(text, &state.history))?;

    let now = state.now().await?;
    let to = to.unwrap_or(now);
    let from = from.unwrap_or(to - USUAL_SPAN);
    if from > to {
        return Err(Problem::invalid_field("from", format!("must not be later than to, which is {to}")));
    }
    let step = step.unwrap_or_else(|| state.history.usual_step(from, to));
    let steps = History::steps(from, to, step);
    if steps > History::MOST_POINTS {
        let most = History::MOST_POINTS;
        return Err(Problem::invalid_field(
            "step",
            format!("gives {steps} points, and at most {most} are given: take longer steps"),
        ));
    }
    let points = state.history.of(&segment, from, to, step).await?;
    let (first, last) = (&points[0], &points[points.len() - 1]);
    Ok(json(&SegmentHistory {
        segment: segment.to_string(),
        from: first.at.to_string(),
        to: last.at.to_string(),
        step_seconds: step.as_secs(),
        as_of: now.to_string(),
        points: points.iter().map(Point::from).collect(),
    }))
}

/// Reads how long a step is.
fn step(text: &str, history: &History) -> std::result::Result<Duration, String> {
    let step = Window::parse(text)?.duration();
    match history.interval() {
        Some(interval) if !step.as_secs().is_multiple_of(interval.as_secs()) => {
            Err(format!("must be a multiple of the interval of {}", humantime::format_duration(interval)))
        }
        _ => Ok(step),
    }
}
