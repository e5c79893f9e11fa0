//! The handler of the list's page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;

use super::super::auth::PageAuth;
use super::super::curl::BaseUrl;
use super::super::list::{self, DEFAULT_ROWS, List as ListPage, MAX_ROWS, Row};
use super::super::ranges::{self, DEFAULT_DAYS};
use super::super::response::html;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};
use crate::estimator::history::Point;
use crate::estimator::{self, List, ListQuery, Order};
use crate::http::cursor;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::list::ListParams;
use crate::http::extract::query::{LenientQuery, Parameters, QueryParams};
use crate::http::problem::Result;
use crate::http::similar_names::similar_names;
use crate::http::state::AppState;
use crate::store;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListPageQuery {
    #[param(ignore)]
    list: ListParams,
    /// The maximum number of segments on the page. The default is 100.
    #[param(inline, value_type = Option<RowsOfPage>, example = 500)]
    limit: usize,
    /// A window shorter than the configured one.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

schemas::schema_type!(RowsOfPage = schemas::integer(MAX_ROWS, DEFAULT_ROWS));

impl QueryParams for ListPageQuery {
    const NAMES: &'static [&'static str] = &["prefix", "contains", "sort", "cursor", "limit", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let limit = query.number("limit", MAX_ROWS)?.unwrap_or(DEFAULT_ROWS);
        Ok(Self { list: ListParams::parse(query, Order::Count)?.trimmed(), limit, window: query.window(state)? })
    }
}

/// Show all segments.
///
/// The page has their counts and past counts, for people.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page_list",
    tag = "pages",
    params(ListParams, ListPageQuery),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), responses::ListPageProblems)
)]
pub async fn list(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    LenientQuery(ListPageQuery { list, limit, window }): LenientQuery<ListPageQuery>,
) -> Result<Response> {
    let query = list.into_query(limit, window);
    let now = state.synced_now().await?;
    let found = state.estimator.list(&query, now).await?;
    let largest = largest(&state, &query, &found, now).await?;
    let segments: Vec<_> = found.segments.iter().map(|counted| counted.segment.clone()).collect();
    // Sparklines read two weeks of history for each row.
    let has_trends = limit <= DEFAULT_ROWS && window == state.estimator.window();
    let trends = if has_trends { trends(&state, &segments, now).await? } else { Vec::new() };
    let trends = trends.into_iter().chain(std::iter::repeat(Vec::new()));
    let rows = found.segments.into_iter().zip(trends).map(|(counted, trend)| Row { counted, trend });
    let similar = if segments.is_empty() { similar(&state, &query.contains).await } else { Vec::new() };
    let list = ListPage {
        rows: rows.collect(),
        prefix: &query.prefix,
        contains: &query.contains,
        order: query.order,
        previous: found.previous.map(|previous| cursor::encode(query.order, &previous)),
        next: found.next.map(|next| cursor::encode(query.order, &next)),
        is_first: query.cursor.is_none(),
        before: found.before,
        total: found.total,
        limit,
        largest,
        now: found.as_of,
        window,
        configured: state.estimator.window(),
        similar,
    };
    Ok(html(list::page(&list, &base_url)))
}

/// Returns names similar to the searched part of a name.
async fn similar(state: &AppState, part: &str) -> Vec<SegmentName<'static>> {
    match SegmentName::parse(part) {
        Ok(name) => similar_names(state, &[&name]).await.concat(),
        Err(_) => Vec::new(),
    }
}

/// Returns the count of the largest segment of all, or of those on the page if too many lists are running.
async fn largest(state: &AppState, query: &ListQuery, found: &List, now: Timestamp) -> Result<u64> {
    let max =
        |list: &List| list.segments.iter().filter_map(|counted| Some(counted.count?.count())).max().unwrap_or_default();
    let is_first =
        query.order == Order::Count && query.cursor.is_none() && query.prefix.is_empty() && query.contains.is_empty();
    if is_first {
        return Ok(max(found));
    }
    match state.estimator.list(&ListQuery::largest(1, query.window), now).await {
        Err(estimator::Error::TooMany(_)) => Ok(max(found)),
        list => Ok(max(&list?)),
    }
}

/// Returns the past counts of each segment over the default range.
async fn trends(
    state: &AppState,
    segments: &[SegmentName<'static>],
    now: Timestamp,
) -> std::result::Result<Vec<Vec<Option<Estimate>>>, store::Error> {
    /// One every three pixels. Sparklines are the largest part of the page.
    const MAX_POINTS: u64 = 42;
    let from = now - ranges::duration(DEFAULT_DAYS);
    let step = state.history.step_for(from, now, MAX_POINTS);
    let points = state.history.of_each(segments, from, now, step).await?;
    let counts = |points: Vec<Point>| points.into_iter().map(|point| point.count).collect();
    // A key of another type leaves only its own row without a sparkline.
    Ok(points.into_iter().map(|points| points.map(counts).unwrap_or_default()).collect())
}
