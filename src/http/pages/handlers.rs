//! What each page asks before it is shown. Their parameters are as strict as those of the API, but that the form for comparing
//! sends fields that were left empty.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::auth::PageAuth;
use super::curl::BaseUrl;
use super::error::FormProblem;
use super::histogram::{Seen, parts};
use super::history::{Past, RANGES, USUAL_DAYS};
use super::list::{self, ROWS, Row};
use super::overlap::{self, Common, Selection};
use super::response::html as html_response;
use super::segment::{self, Segment};
use crate::domain::{SegmentName, Timestamp};
use crate::estimator::history::{History, Point};
use crate::estimator::overlap::Overlaps;
use crate::estimator::{ListCursor, ListQuery, Order};
use crate::http::AppState;
use crate::http::api::lists;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::query::RawQuery;
use crate::http::middleware::endpoint::in_time;
use crate::http::problem::{Problem, Result};
use crate::store;

/// All segments as a page.
///
/// With counts and their history, for people.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page_list",
    tag = "pages",
    params(
        ("prefix" = inline(Option<String>), Query, description = "What the names begin with.", example = json!("sp")),
        ("sort" = inline(Option<schemas::PageOrder>), Query, description = "The order.", example = json!("name")),
    ),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), problems::OfAListPage)
)]
pub async fn of_list(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    query: RawQuery,
) -> Result<Response> {
    let parameters = query.knowing("the list of segments", &["prefix", "sort", "cursor"])?;
    let prefix = parameters.one("prefix", |prefix| Ok(prefix.to_owned()))?.unwrap_or_default();
    let order = lists::order(&parameters)?.unwrap_or(Order::Count);
    let after = parameters.one("cursor", |text| cursor(text).ok_or_else(|| "is not one of this list".to_owned()))?;
    let (window, is_first) = (state.estimator.window(), after.is_none());

    let now = state.now().await?;
    let query = ListQuery { prefix, order, limit: ROWS, after, window };
    let found = state.estimator.list(&query, now).await?;
    let segments: Vec<_> = found.segments.iter().map(|counted| counted.segment.clone()).collect();
    let trends = trends(&state.history, &segments, now).await?;
    let rows = found.segments.into_iter().zip(trends).map(|(counted, trend)| Row {
        segment: counted.segment.to_string(),
        count: counted.count,
        trend,
    });
    let list = list::List {
        rows: rows.collect(),
        prefix: &query.prefix,
        sort: order,
        next: found.next.map(|ListCursor { segment, count }| {
            format!("{}.{segment}", count.map(|count| count.to_string()).unwrap_or_default())
        }),
        is_first,
        now: found.as_of,
        window,
    };
    Ok(html_response(list::page(&list, &base_url)))
}

/// Where a page of the list ended: a count, and a name.
fn cursor(text: &str) -> Option<ListCursor> {
    let (count, segment) = text.split_once('.')?;
    let count = if count.is_empty() { None } else { Some(count.parse().ok()?) };
    Some(ListCursor { count, segment: SegmentName::parse(segment.to_owned()).ok()? })
}

/// The sizes of each segment over the usual time.
async fn trends(
    history: &History,
    segments: &[SegmentName<'static>],
    now: Timestamp,
) -> std::result::Result<Vec<Vec<Option<u64>>>, store::Error> {
    /// So many are seen in a row's line, and no more.
    const POINTS: u64 = 84;
    let from = now - Duration::from_secs(USUAL_DAYS * 86_400);
    let points = history.of_each(segments, from, now, history.step_for(from, now, POINTS)).await?;
    let counts = |points: Vec<Point>| points.into_iter().map(|point| point.count).collect();
    // A key that is no history leaves its own row without a line, and no other.
    Ok(points.into_iter().map(|points| points.map(counts).unwrap_or_default()).collect())
}

/// A segment as a page.
///
/// Its count, when its members were last seen, and how many there were, for people.
#[utoipa::path(
    get,
    path = "/pages/segment",
    operation_id = "page_segment",
    tag = "pages",
    params(
        ("name" = inline(schemas::SegmentName), Query, description = "The segment's name.", example = json!("sports")),
        ("window" = inline(Option<schemas::Window>), Query, description = "A shorter window.", example = json!("7d")),
        ("days" = inline(Option<schemas::PageDays>), Query, description = "How far back the page goes.", example = json!("7")),
    ),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), problems::OfAPage)
)]
pub async fn of_segment(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    query: RawQuery,
) -> Result<Response> {
    /// So many are told apart on a screen, and pointed at.
    const DRAWN: u64 = 170;
    /// So many go into the highest and the lowest of each day. All hourly ones of 13 months are a tenth of that.
    const READ: u64 = 100_000;
    let parameters = query.knowing("a segment's page", &["name", "window", "days"])?;
    let name = parameters
        .one("name", |name| Ok(name.to_owned()))?
        .ok_or_else(|| Problem::invalid_field("name", "is required"))?;
    let name = SegmentName::parse(name).map_err(|error| Problem::invalid_field("name", error.detail))?;
    let longest = state.estimator.window();
    let window = parameters.window()?.unwrap_or(longest);
    let days = parameters.one("days", days)?.unwrap_or(USUAL_DAYS);

    let now = state.now().await?;
    let histogram = state.estimator.histogram(&name, window, parts(window), now).await?;
    let from = now - Duration::from_secs(days * 86_400);
    let points = match state.history.of(&name, from, now, state.history.step_for(from, now, READ)).await {
        Err(store::Error::WrongType { .. }) => None,
        points => Some(points?),
    };
    let seen = histogram.buckets.into_iter().map(|part| Seen { from: part.from, to: part.to, count: part.count });
    let segment = Segment {
        name: name.as_str(),
        count: histogram.count,
        now,
        window,
        longest,
        last_seen: seen.collect(),
        past: Past {
            days,
            is_readable: points.is_some(),
            points: points.unwrap_or_default().into_iter().map(|point| (point.at, point.count)).collect(),
            step: state.history.step_for(from, now, DRAWN),
            interval: state.history.interval(),
        },
    };
    Ok(html_response(segment::page(&segment, &base_url)))
}

fn days(text: &str) -> std::result::Result<u64, String> {
    let known = RANGES.iter().map(|(days, _)| *days).find(|days| days.to_string() == text);
    known.ok_or_else(|| format!("must be one of {}", RANGES.map(|(days, _)| days.to_string()).join(", ")))
}

/// Segments to compare, as a page.
///
/// How many users they have in common, for people.
#[utoipa::path(
    get,
    path = "/pages/overlap",
    operation_id = "page_overlap",
    tag = "pages",
    params(
        (
            "segment" = inline(schemas::OverlapSegments),
            Query,
            style = Form,
            explode,
            description = "The segments: two to eight. With fewer there is the form for picking them; empty ones count for nothing.",
            example = json!(["sports", "news"])
        ),
    ),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), problems::OfAnOverlapPage)
)]
pub async fn of_overlap(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    query: RawQuery,
) -> std::result::Result<Response, FormProblem> {
    let parameters = query.knowing("the comparison of segments", &["segment"])?.filled();
    let given: Vec<_> = parameters.all("segment").map(str::to_owned).collect();
    let mut selection = Selection { names: given.iter().map(String::as_str).collect(), offered: Vec::new() };
    if given.len() >= Overlaps::LEAST || given.len() > Overlaps::MOST {
        let segments = parameters.segments(Overlaps::LEAST, Overlaps::MOST);
        let segments = segments.map_err(|problem| FormProblem::new(problem, overlap::form(&selection)))?;
        // First, since it costs less: when it is refused, no overlap was made for nothing.
        let names = offered(&state, state.now().await?).await;
        selection.offered = names.map_err(|problem| FormProblem::new(problem, overlap::form(&selection)))?;
        let (now, window) = (state.now().await?, state.estimator.window());
        let found = state.overlaps.of(&segments, window, now).await;
        let found = found.map_err(|error| FormProblem::new(error, overlap::form(&selection)))?;
        let pairs = found.pairs.iter().map(|pair| (pair.first, pair.second, pair.both)).collect();
        let common = Common { any: found.any, all: found.all, counts: found.counts, pairs, now, window };
        return Ok(html_response(overlap::page(&selection, Some(&common), &base_url)));
    }
    let now = state.now().await?;
    selection.offered = offered(&state, now).await?;
    Ok(html_response(overlap::page(&selection, None, &base_url)))
}

/// The names that fields offer: those of the largest segments.
async fn offered(state: &AppState, now: Timestamp) -> Result<Vec<String>> {
    const MOST_OFFERED: usize = 300;
    let window = state.estimator.window();
    let query = ListQuery { prefix: String::new(), order: Order::Count, limit: MOST_OFFERED, after: None, window };
    let list = in_time(state.limits.request, state.estimator.list(&query, now)).await??;
    let mut names = list.segments;
    names.retain(|counted| counted.count.is_some());
    names.sort_by(|one, other| one.segment.cmp(&other.segment));
    Ok(names.into_iter().map(|counted| counted.segment.to_string()).collect())
}
