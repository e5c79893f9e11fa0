//! `GET /overlap`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::overlap::{Overlap as Figures, Overlaps};
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Read};
use crate::http::extract::query::RawQuery;
use crate::http::json::json;
use crate::http::problem::Result;

/// How many users segments have in common.
#[derive(Serialize, ToSchema)]
struct Overlap<'a> {
    /// Each segment, in the order in which they were asked for.
    #[schema(min_items = 2, max_items = 8)]
    segments: Vec<OneSegment<'a>>,
    /// How many users are in one of them at the least: their union.
    any: u64,
    /// How many users are in all of them: their intersection.
    all: u64,
    /// How many users are in both of two, for each two of them.
    #[schema(min_items = 1, max_items = 28)]
    pairs: Vec<TwoSegments<'a>>,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// When the read began, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

/// One segment of an overlap.
#[derive(Serialize, ToSchema)]
#[schema(as = OverlapSegment)]
struct OneSegment<'a> {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: &'a str,
    /// How many users are in it.
    count: u64,
}

/// Two segments of an overlap.
#[derive(Serialize, ToSchema)]
#[schema(as = OverlapPair)]
struct TwoSegments<'a> {
    /// Their names.
    #[schema(min_items = 2, max_items = 2)]
    segments: [&'a str; 2],
    /// How many users are in both.
    count: u64,
}

/// How many users segments have in common now.
///
/// The numbers are exact: of each user once who was in a segment when the read began. Who expires or is deleted during it may count or
/// not. It takes some seconds for
/// millions of members. Who is seen for the first time meanwhile may count or not; all numbers of an answer are of the same read, so
/// they agree with each other. The members are read in small slices, which hold nobody up, and few overlaps are answered at the
/// same time.
#[utoipa::path(
    get,
    path = "/overlap",
    operation_id = "overlap",
    tag = "counts",
    params(
        (
            "segment" = inline(schemas::OverlapSegments),
            Query,
            style = Form,
            explode,
            description = "The segments: 2 to 8 different ones, as `segment=a&segment=b`.",
            example = json!(["sports", "news"])
        ),
        (
            "window" = inline(Option<schemas::Window>),
            Query,
            description = "Over this window instead of the configured one. It can't be longer than that. Other parameters \
                           are errors.",
            example = json!("7d")
        ),
    ),
    responses(
        (status = 200, description = "The numbers.", body = Overlap, example = json!({
            "segments": [{ "segment": "sports", "count": 42 }, { "segment": "news", "count": 30 }],
            "any": 60,
            "all": 12,
            "pairs": [{ "segments": ["sports", "news"], "count": 12 }],
            "window_seconds": 604800,
            "as_of": "2026-11-22T10:00:00.000Z",
        })),
        problems::OfAnOverlap,
    )
)]
pub async fn overlap(_: May<Read>, State(state): State<Arc<AppState>>, query: RawQuery) -> Result<Response> {
    let query = query.knowing("an overlap", &["segment", "window"])?;
    let segments = query.segments(Overlaps::LEAST, Overlaps::MOST)?;
    let window = query.window()?.unwrap_or(state.estimator.window());
    let now = state.now().await?;
    let figures = state.overlaps.of(&segments, window, now).await?;
    Ok(json(&Overlap::of(&segments, &figures, window, now)))
}

impl<'a> Overlap<'a> {
    fn of(segments: &'a [SegmentName<'static>], figures: &Figures, window: Window, now: Timestamp) -> Self {
        let name = |place: usize| segments[place].as_str();
        let counts = figures.counts.iter().enumerate();
        let pairs = figures.pairs.iter();
        Self {
            segments: counts.map(|(place, &count)| OneSegment { segment: name(place), count }).collect(),
            any: figures.any,
            all: figures.all,
            pairs: pairs
                .map(|pair| TwoSegments { segments: [name(pair.first), name(pair.second)], count: pair.both })
                .collect(),
            window_seconds: window.as_secs(),
            as_of: now.to_string(),
        }
    }
}
