//! `GET /segments`: lists segments with their counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::as_of::AsOf;
use super::change::CountChange;
use crate::domain::{SegmentName, Window};
use crate::estimator::{CountedSegment, ListCursor, ListQuery, NameFilter, Order};
use crate::http::cursor;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

const MAX_LIMIT: usize = 1_000;
const DEFAULT_LIMIT: usize = 100;

schemas::schema_type!(Limit = schemas::integer(MAX_LIMIT, DEFAULT_LIMIT));
schemas::schema_type!(Prefix = schemas::text(SegmentName::MAX_BYTES));

/// Segments with their counts.
#[derive(Serialize, ToSchema)]
struct Segments {
    /// The segments with at least one user, in the requested order.
    segments: Vec<SegmentCount>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
    /// The `cursor` of the previous page; null on the first page.
    #[schema(required)]
    previous_cursor: Option<String>,
    /// The number of segments on all pages; null in the order of names if there are several pages, because that order
    /// doesn't count all segments.
    #[schema(required)]
    total: Option<u64>,
    #[serde(flatten)]
    as_of: AsOf,
}

/// The count of a segment.
#[derive(Serialize, ToSchema)]
pub struct SegmentCount {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// Whether the service knows the segment: it has users, had some until the last pruning, or has a history. Absent
    /// in lists, whose segments are all known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    known: Option<bool>,
    /// The number of users who were seen in the segment within the window; null if it is unknown, with the reason in
    /// `error`.
    #[schema(required)]
    count: Option<u64>,
    /// Why the count is unknown: the segment's key in Redis belongs to another program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'static str>,
    /// The change in the day before the last sample, over the configured window; null without a sample of that time.
    #[schema(required)]
    change_1d: Option<CountChange>,
    /// The change in the week before the last sample, over the configured window; null without a sample of that time.
    #[schema(required)]
    change_7d: Option<CountChange>,
}

impl SegmentCount {
    /// Adds whether the service knows the segment.
    pub fn with_known(self, known: bool) -> Self {
        Self { known: Some(known), ..self }
    }
}

impl From<CountedSegment> for SegmentCount {
    fn from(CountedSegment { segment, count, changes }: CountedSegment) -> Self {
        const NOT_A_SEGMENT: &str =
            "the segment's key in Redis is not a sorted set: another program writes to this Redis";
        let error = count.is_none().then_some(NOT_A_SEGMENT);
        let (change_1d, change_7d) = (changes.day.map(CountChange::from), changes.week.map(CountChange::from));
        Self { segment: segment.to_string(), known: None, count, error, change_1d, change_7d }
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SegmentsQuery {
    /// The maximum number of segments on a page; 100 by default.
    #[param(inline, value_type = Option<Limit>, example = 2)]
    limit: usize,
    /// The `next_cursor` or `previous_cursor` of another page.
    #[param(value_type = Option<String>, example = "bjphcnQ")]
    cursor: Option<ListCursor>,
    /// List only segments whose names start with this.
    #[param(inline, value_type = Option<Prefix>, example = "")]
    prefix: String,
    /// List only segments whose names contain this, in upper or lower case.
    #[param(inline, value_type = Option<Prefix>, example = "")]
    contains: String,
    /// `name` for the order of the names' bytes; `count` for the largest first; `change` for the largest growth in a
    /// week first; `-change` for the largest loss in a week first; `new` for the segments first whose histories began
    /// last, and before them those without a sample. `name` by default. Segments that have lost all users are not
    /// listed. If no history is recorded, `change` and `-change` are the order of names.
    #[param(inline, value_type = Option<schemas::SegmentOrder>, example = "name")]
    sort: Order,
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for SegmentsQuery {
    const NAMES: &'static [&'static str] = &["limit", "cursor", "prefix", "contains", "sort", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        const MAX_PREFIX: usize = SegmentName::MAX_BYTES;
        let limit = query.number("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        let part = |name| {
            let part = query.one(name, |text| match text.len() {
                0..=MAX_PREFIX => Ok(text.to_owned()),
                _ => Err(format!("must have at most {MAX_PREFIX} bytes")),
            });
            part.map(Option::unwrap_or_default)
        };
        let (prefix, contains) = (part("prefix")?, part("contains")?);
        let (sort, names) = (order(query)?.unwrap_or(Order::Name), NameFilter::new(&prefix, &contains));
        let cursor = query.one("cursor", |text| cursor::decode(text, sort, &names))?;
        Ok(Self { limit, cursor, prefix, contains, sort, window: query.window(state)? })
    }
}

/// Returns the parameter `sort`.
pub fn order(query: &Parameters) -> Result<Option<Order>> {
    query.one("sort", |text| match text {
        "name" => Ok(Order::Name),
        "count" => Ok(Order::Count),
        "change" => Ok(Order::Growth),
        "-change" => Ok(Order::Decline),
        "new" => Ok(Order::Newest),
        _ => Err("must be name, count, change, -change or new".to_owned()),
    })
}

/// List segments with their counts.
///
/// The list has pages. While `next_cursor` is not null, repeat the request with it as `cursor` and with the same other
/// parameters. `previous_cursor` leads back in the same way. A segment without users is not listed. If the key of a
/// segment in Redis belongs to another program, its count is null with an `error`; it is last in the order of counts.
/// In the order of names, every segment that exists throughout is listed exactly once. In the order of counts, a segment
/// that grows or shrinks between two pages may be listed twice, or not at all.
///
/// The changes come from the samples of the history, and are over the configured window. In the orders of changes,
/// segments without a sample of a week before come last. Equal segments are in the order of names.
///
/// From 1,000 segments on, concurrent lists in any order but that of names share one answer for up to a second: their
/// `as_of` may be shortly before the request. The number of concurrent lists is limited.
#[utoipa::path(
    get,
    path = "/segments",
    operation_id = "list_segments",
    tag = "counts",
    params(SegmentsQuery),
    responses(
        (status = 200, description = "A page of segments.", body = Segments, example = json!({
            "segments": [
                { "segment": "news", "count": 7, "change_1d": { "absolute": 2, "relative": 0.4, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" }, "change_7d": null },
                {
                    "segment": "sports", "count": 42, "change_1d": { "absolute": -1, "relative": -0.0233, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                    "change_7d": { "absolute": 2, "relative": 0.05, "from": "2026-11-15T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                },
            ],
            "next_cursor": "bjpzcG9ydHM", "previous_cursor": null, "total": null, "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        responses::ListProblems,
    )
)]
pub async fn list(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    StrictQuery(query): StrictQuery<SegmentsQuery>,
) -> Result<Response> {
    let SegmentsQuery { limit, cursor, prefix, contains, sort: order, window } = query;
    let query = ListQuery { prefix, contains, order, limit, cursor, window };
    let now = state.synced_now().await?;
    let list = state.estimator.list(&query, now).await?;
    Ok(json(&Segments {
        segments: list.segments.into_iter().map(SegmentCount::from).collect(),
        next_cursor: list.next.as_ref().map(|next| cursor::encode(order, next)),
        previous_cursor: list.previous.as_ref().map(|previous| cursor::encode(order, previous)),
        total: list.total,
        as_of: AsOf::new(window, list.as_of),
    }))
}
