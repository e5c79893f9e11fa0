//! `GET /segments` and `GET /counts`: many segments at once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{SegmentName, Window};
use crate::estimator::{Counted, ListCursor, ListQuery, Order};
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Read};
use crate::http::extract::query::{Parameters, RawQuery};
use crate::http::json::json;
use crate::http::problem::{Problem, Result};

/// The most segments on a page.
pub(crate) const MOST: usize = 1_000;
/// How many are on a page when nobody says.
pub(crate) const USUAL: usize = 100;
/// The most segments whose counts are asked for by name.
pub(crate) const MOST_COUNTS: usize = 100;

/// Segments with their counts.
#[derive(Serialize, ToSchema)]
struct Segments {
    /// The segments that there are users in, in the order that was asked for.
    segments: Vec<SegmentCount>,
    /// The `cursor` of the next page; null on the last.
    next_cursor: Option<String>,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The moment for which the counts are true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

/// Counts of segments.
#[derive(Serialize, ToSchema)]
struct Counts {
    /// A count for each segment, in the order that they were given in.
    counts: Vec<SegmentCount>,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The moment for which the counts are true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

/// A segment's count.
#[derive(Serialize, ToSchema)]
struct SegmentCount {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// How many users were seen in it within the window; null if that can't be known, as `error` tells.
    #[schema(required)]
    count: Option<u64>,
    /// Why there is no count: the segment's key in Redis belongs to something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'static str>,
}

/// Why a segment has no count.
const NOT_A_SEGMENT: &str = "the segment's key in Redis is not a sorted set: another program writes to this Redis";

impl From<Counted> for SegmentCount {
    fn from(Counted { segment, count }: Counted) -> Self {
        let error = count.is_none().then_some(NOT_A_SEGMENT);
        Self { segment: segment.to_string(), count, error }
    }
}

/// The segments that there are users in, with their counts.
///
/// In pages: as long as `next_cursor` is not null, ask again with it as `cursor` and all else as before. A segment that nobody is in
/// any more is not listed. One whose key in Redis belongs to another program is listed with the count null and an `error`, last in the
/// order of counts. In the order of names, what is there all the while is listed once. In the order of counts, a segment that
/// grows or shrinks between two pages may be listed twice, or not at all.
///
/// With 1,000 segments or more, lists in the order of counts that are asked for at the same time share one answer, for a second: its
/// `as_of` may lie shortly before the request. Few lists are made at a time.
#[utoipa::path(
    get,
    path = "/segments",
    operation_id = "list_segments",
    tag = "counts",
    params(
        (
            "limit" = inline(Option<schemas::ListLimit>),
            Query,
            description = "How many segments a page has at the most; 100 if not given.",
            example = json!(2)
        ),
        (
            "cursor" = Option<String>,
            Query,
            description = "The `next_cursor` of the page before.",
            example = json!("bjc6YXJ0")
        ),
        (
            "prefix" = inline(Option<schemas::Prefix>),
            Query,
            description = "List only segments whose names begin with this.",
            example = json!("")
        ),
        (
            "sort" = inline(Option<schemas::PageOrder>),
            Query,
            description = "`name`, the order of the names' bytes, or `count`, the largest first; `name` if not given.",
            example = json!("name")
        ),
        (
            "window" = inline(Option<schemas::Window>),
            Query,
            description = "Count over this window instead of the configured one. It can't be longer than that.",
            example = json!("7d")
        ),
    ),
    responses(
        (status = 200, description = "A page of segments.", body = Segments, example = json!({
            "segments": [{ "segment": "news", "count": 7 }, { "segment": "sports", "count": 42 }],
            "next_cursor": "bjQyOnNwb3J0cw", "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        problems::OfAList,
    )
)]
pub async fn list(_: May<Read>, State(state): State<Arc<AppState>>, query: RawQuery) -> Result<Response> {
    let parameters = query.knowing("a list of segments", &["limit", "cursor", "prefix", "sort", "window"])?;
    let query = list_query(&parameters, state.estimator.window())?;
    let now = state.now().await?;
    let list = state.estimator.list(&query, now).await?;
    Ok(json(&Segments {
        segments: list.segments.into_iter().map(SegmentCount::from).collect(),
        next_cursor: list.next.as_ref().map(|next| write_cursor(query.order, next)),
        window_seconds: query.window.as_secs(),
        as_of: list.as_of.to_string(),
    }))
}

/// The counts of up to 100 segments.
///
/// Exact, each as of the same moment. A segment nobody is in counts 0. One whose key in Redis belongs to another program has the
/// count null and an `error`, and the others are counted.
#[utoipa::path(
    get,
    path = "/counts",
    operation_id = "count_segments",
    tag = "counts",
    params(
        (
            "segment" = inline(schemas::CountedSegments),
            Query,
            description = "A segment's name; 1 to 100 of them, each `segment=` its own.",
            example = json!(["sports", "news"])
        ),
        (
            "window" = inline(Option<schemas::Window>),
            Query,
            description = "Count over this window instead of the configured one. It can't be longer than that.",
            example = json!("7d")
        ),
    ),
    responses(
        (status = 200, description = "The counts.", body = Counts, example = json!({
            "counts": [{ "segment": "sports", "count": 42 }, { "segment": "news", "count": 7 }],
            "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        problems::OfACount,
    )
)]
pub async fn counts(_: May<Read>, State(state): State<Arc<AppState>>, query: RawQuery) -> Result<Response> {
    let parameters = query.knowing("counts", &["segment", "window"])?;
    let segments = parameters.segments(1, MOST_COUNTS)?;
    let window = parameters.window()?.unwrap_or(state.estimator.window());

    let now = state.now().await?;
    let counts = state.estimator.estimate_each(&segments, window, now).await?;
    let counts = segments.into_iter().zip(counts).map(|(segment, count)| Counted { segment, count }.into()).collect();
    Ok(json(&Counts { counts, window_seconds: window.as_secs(), as_of: now.to_string() }))
}

/// The list that `parameters` ask for, over `window` unless they say otherwise.
fn list_query(parameters: &Parameters, window: Window) -> Result<ListQuery> {
    let limit = parameters.number("limit", MOST)?;
    let prefix = parameters.one("prefix", |text| {
        let most = SegmentName::MAX_BYTES;
        if text.len() > most { Err(format!("must have {most} bytes at the most")) } else { Ok(text.to_owned()) }
    })?;
    let after = parameters
        .one("cursor", |text| read_cursor(text).ok_or_else(|| "is not the next_cursor of a page".to_owned()))?;
    let (prefix, order) = (prefix.unwrap_or_default(), order(parameters)?.unwrap_or(Order::Name));
    let is_of_this = |(of, cursor): &(Order, ListCursor)| *of == order && cursor.segment.as_str().starts_with(&prefix);
    if after.as_ref().is_some_and(|after| !is_of_this(after)) {
        return Err(Problem::invalid_field(
            "cursor",
            "is of a list with another prefix or sort: begin that one without a cursor",
        ));
    }
    Ok(ListQuery {
        order,
        limit: limit.unwrap_or(USUAL),
        after: after.map(|(_, cursor)| cursor),
        window: parameters.window()?.unwrap_or(window),
        prefix,
    })
}

/// The order that `parameters` ask for.
pub(crate) fn order(parameters: &Parameters) -> Result<Option<Order>> {
    parameters.one("sort", |text| match text {
        "name" => Ok(Order::Name),
        "count" => Ok(Order::Count),
        _ => Err("must be name or count".to_owned()),
    })
}

/// A cursor as text, which stands in a URL as it is: a letter for the order, the count, and the name.
fn write_cursor(order: Order, ListCursor { segment, count }: &ListCursor) -> String {
    let order = match order {
        Order::Name => 'n',
        Order::Count => 'c',
    };
    let count = count.map(|count| count.to_string()).unwrap_or_default();
    BASE64URL_NOPAD.encode(format!("{order}{count}:{segment}").as_bytes())
}

fn read_cursor(text: &str) -> Option<(Order, ListCursor)> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()?;
    let (order, rest) = text.split_at_checked(1)?;
    let order = match order {
        "n" => Order::Name,
        "c" => Order::Count,
        _ => return None,
    };
    let (count, name) = rest.split_once(':')?;
    let count = if count.is_empty() { None } else { Some(count.parse().ok()?) };
    Some((order, ListCursor { segment: SegmentName::parse(name.to_owned()).ok()?, count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for (order, count) in [(Order::Name, Some(u64::MAX)), (Order::Count, Some(0)), (Order::Count, None)] {
            let cursor = ListCursor { segment: SegmentName::parse("größe: 5/7?").unwrap(), count };
            assert_eq!(read_cursor(&write_cursor(order, &cursor)), Some((order, cursor)));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "n", "!", "bg", "eDE6c3BvcnRz", "Y3Nwb3J0cw", "bjE6", "_w"] {
            assert_eq!(read_cursor(text), None, "{text}");
        }
    }
}
