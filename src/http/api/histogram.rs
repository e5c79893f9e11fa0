//! `GET /segments/{name}/histogram`: a segment's users by when they were last seen.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::segments::segment_of;
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Read};
use crate::http::extract::query::RawQuery;
use crate::http::json::json;
use crate::http::problem::Result;

/// The most parts that the window is cut into.
pub(crate) const MOST: usize = 100;
/// How many they are when nobody says: the days of the usual window.
pub(crate) const USUAL: usize = 14;

/// A segment's users by when they were last seen.
#[derive(Serialize, ToSchema)]
struct SegmentHistogram {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// How many users were seen in it within the window: the sum of all parts.
    count: u64,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The moment for which this is true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
    /// The window in parts of one length, the oldest first.
    #[schema(min_items = 1)]
    buckets: Vec<HistogramBucket>,
}

/// The users who were last seen in a part of the window.
#[derive(Serialize, ToSchema)]
struct HistogramBucket {
    /// They were last seen after this.
    #[schema(format = DateTime)]
    from: String,
    /// They were last seen at this moment or before.
    #[schema(format = DateTime)]
    to: String,
    /// They leave the count over this window after this, unless they are seen again.
    #[schema(format = DateTime)]
    leave_from: String,
    /// By this moment they have left, unless they were seen again.
    #[schema(format = DateTime)]
    leave_to: String,
    /// How many they are.
    count: u64,
}

/// A segment's users by when they were last seen.
///
/// Equally: by when they will leave, unless they are seen again. All parts together are the count of that moment.
#[utoipa::path(
    get,
    path = "/segments/{name}/histogram",
    operation_id = "segment_histogram",
    tag = "counts",
    params(
        ("name" = inline(schemas::SegmentName), Path, description = "The segment's name, percent-encoded.", example = json!("sports")),
        (
            "buckets" = inline(Option<schemas::HistogramBuckets>),
            Query,
            description = "How many parts the window is cut into; 14 if not given.",
            example = json!(2)
        ),
        (
            "window" = inline(Option<schemas::Window>),
            Query,
            description = "Look at this window instead of the configured one. It can't be longer than that.",
            example = json!("2d")
        ),
    ),
    responses(
        (status = 200, description = "The histogram.", body = SegmentHistogram, example = json!({
            "segment": "sports", "count": 42, "window_seconds": 172800, "as_of": "2026-11-22T10:00:00.000Z",
            "buckets": [
                {
                    "from": "2026-11-20T10:00:00.000Z", "to": "2026-11-21T10:00:00.000Z",
                    "leave_from": "2026-11-22T10:00:00.000Z", "leave_to": "2026-11-23T10:00:00.000Z", "count": 12,
                },
                {
                    "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z",
                    "leave_from": "2026-11-23T10:00:00.000Z", "leave_to": "2026-11-24T10:00:00.000Z", "count": 30,
                },
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
    let query = query.knowing("a histogram", &["buckets", "window"])?;
    let buckets = query.number("buckets", MOST)?;
    let window = query.window()?.unwrap_or(state.estimator.window());

    let now = state.now().await?;
    let histogram = state.estimator.histogram(&segment, window, buckets.unwrap_or(USUAL), now).await?;
    let buckets = histogram.buckets.into_iter().map(|bucket| HistogramBucket {
        from: bucket.from.to_string(),
        to: bucket.to.to_string(),
        leave_from: (bucket.from + window.duration()).to_string(),
        leave_to: (bucket.to + window.duration()).to_string(),
        count: bucket.count,
    });
    Ok(json(&SegmentHistogram {
        segment: segment.to_string(),
        count: histogram.count,
        window_seconds: window.as_secs(),
        as_of: now.to_string(),
        buckets: buckets.collect(),
    }))
}
