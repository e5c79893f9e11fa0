//! `GET /segments`: lists segments with their counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use super::change::CountChange;
use crate::domain::{Estimate, Window};
use crate::estimator::{CountedSegment, Order};
use crate::http::cursor;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::list::ListParams;
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::Result;
use crate::http::state::AppState;
use crate::http::table::{CsvWriter, Cursors, Table};

const MAX_LIMIT: usize = 1_000;
const DEFAULT_LIMIT: usize = 100;

schemas::schema_type!(Limit = schemas::integer(MAX_LIMIT, DEFAULT_LIMIT));

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

/// The count of a segment. `known` is absent in lists, whose segments are all known.
#[derive(Serialize, ToSchema)]
pub struct SegmentCount {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::known, required = false)]
    known: Option<bool>,
    /// The number of users who were seen in the segment within the window; null if it is unknown, with the reason in
    /// `error`.
    #[schema(required)]
    count: Option<u64>,
    /// Absent if the count is null.
    #[serde(flatten)]
    accuracy: Option<Accuracy>,
    /// Why the count is unknown: the segment's key in Redis belongs to another program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'static str>,
    /// The change in the day before the last sample, over the configured window; null without a sample of that time,
    /// and for a day after a change of the window.
    #[schema(required)]
    change_1d: Option<CountChange>,
    /// The change in the week before the last sample, over the configured window; null without a sample of that time,
    /// and for a week after a change of the window.
    #[schema(required)]
    change_7d: Option<CountChange>,
}

impl Table for Segments {
    const FILE_NAME: &'static str = "segments";

    fn as_of(&self) -> &str {
        self.as_of.as_of()
    }

    fn write(&self, csv: &mut CsvWriter) {
        SegmentCount::write_each(&self.segments, &self.as_of, csv);
    }

    fn cursors(&self) -> Cursors<'_> {
        Cursors { next: self.next_cursor.as_deref(), previous: self.previous_cursor.as_deref() }
    }
}

impl SegmentCount {
    /// Adds whether the service knows the segment.
    pub fn with_known(self, known: bool) -> Self {
        Self { known: Some(known), ..self }
    }

    /// Writes a row for each count.
    pub fn write_each(counts: &[Self], as_of: &AsOf, csv: &mut CsvWriter) {
        let of_change = |name| CountChange::COLUMNS.map(|column| format!("{name}_{column}"));
        let columns = ["segment", "known", "count"].into_iter().chain(Accuracy::COLUMNS).chain(["error"]);
        let columns = columns.map(str::to_owned).chain(of_change("change_1d")).chain(of_change("change_7d"));
        let columns: Vec<_> = columns.chain(AsOf::COLUMNS.map(str::to_owned)).collect();
        csv.row(columns.iter().map(String::as_str));
        for counted in counts {
            let own = [counted.segment.as_str().into(), counted.known.unwrap_or(true).into(), counted.count.into()]
                .into_iter();
            let own = own.chain(Accuracy::cells(counted.accuracy.as_ref())).chain([counted.error.into()]);
            let changes = [&counted.change_1d, &counted.change_7d].map(|change| CountChange::cells(change.as_ref()));
            csv.row(own.chain(changes.into_iter().flatten()).chain(as_of.cells()));
        }
    }
}

impl From<CountedSegment> for SegmentCount {
    fn from(CountedSegment { segment, count, changes }: CountedSegment) -> Self {
        const NOT_A_SEGMENT: &str =
            "the segment's key in Redis is not a sorted set: another program writes to this Redis";
        let error = count.is_none().then_some(NOT_A_SEGMENT);
        let (change_1d, change_7d) = (changes.day.map(CountChange::from), changes.week.map(CountChange::from));
        Self {
            segment: segment.to_string(),
            known: None,
            count: count.map(Estimate::count),
            accuracy: count.map(Accuracy::from),
            error,
            change_1d,
            change_7d,
        }
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SegmentsQuery {
    /// The maximum number of segments on a page; 100 by default.
    #[param(inline, value_type = Option<Limit>, example = 2)]
    limit: usize,
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
    #[param(ignore)]
    list: ListParams,
}

impl QueryParams for SegmentsQuery {
    const NAMES: &'static [&'static str] = &["limit", "window", "prefix", "contains", "sort", "cursor"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let limit = query.number("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        Ok(Self { limit, window: query.window(state)?, list: ListParams::parse(query, Order::Name)? })
    }
}

/// List segments with their counts.
///
/// The list has pages. While `next_cursor` is not null, repeat the request with it as `cursor` and with the same other
/// parameters. `previous_cursor` leads back in the same way. A segment without users is not listed. If the key of a
/// segment in Redis belongs to another program, its count is null with an `error`; it is last in the order of counts.
/// In the order of names, every segment that exists throughout is listed exactly once. In the order of counts, a
/// segment that grows or shrinks between two pages may be listed twice, or not at all.
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
    params(SegmentsQuery, ListParams, FormatParam),
    responses(
        (status = 200, description = "A page of segments.", content(
            (Segments = "application/json", example = json!({
                "segments": [
                    { "segment": "news", "count": 7, "exact": true, "change_1d": { "absolute": 2, "relative": 0.4, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" }, "change_7d": null },
                    {
                        "segment": "sports", "count": 42, "exact": true, "change_1d": { "absolute": -1, "relative": -0.0233, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                        "change_7d": { "absolute": 2, "relative": 0.05, "from": "2026-11-15T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
                    },
                ],
                "next_cursor": "bjpzcG9ydHM", "previous_cursor": null, "total": null, "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
            })),
            (String = "text/csv", example = json!(concat!(
                "segment,known,count,exact,error_95,error,change_1d_absolute,change_1d_absolute_error_95,change_1d_relative,change_1d_from,change_1d_to,change_7d_absolute,change_7d_absolute_error_95,change_7d_relative,change_7d_from,change_7d_to,window_seconds,as_of\r\n",
                "news,true,7,true,,,2,,0.4,2026-11-21T10:00:00.000Z,2026-11-22T10:00:00.000Z,,,,,,604800,2026-11-22T10:00:00.000Z\r\n",
            ))),
        ), headers(
            ("link" = String, description = "The next and the previous page (RFC 8288), if there are any, with the relations `next` and `prev`.")
        )),
        responses::ListProblems,
    )
)]
pub async fn list(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    TableQuery(SegmentsQuery { limit, window, list }, responder): TableQuery<SegmentsQuery>,
) -> Result<Response> {
    let query = list.into_query(limit, window);
    let now = state.synced_now().await?;
    let list = state.estimator.list(&query, now).await?;
    Ok(responder.respond(&Segments {
        segments: list.segments.into_iter().map(SegmentCount::from).collect(),
        next_cursor: list.next.as_ref().map(|next| cursor::encode(query.order, next)),
        previous_cursor: list.previous.as_ref().map(|previous| cursor::encode(query.order, previous)),
        total: list.total,
        as_of: AsOf::new(window, list.as_of),
    }))
}
