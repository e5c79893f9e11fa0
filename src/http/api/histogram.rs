//! `GET /segments/{name}/histogram`: groups the users of a segment by the time of their last visit.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use crate::domain::Window;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::Result;
use crate::http::state::AppState;
use crate::http::table::{Cell, CsvWriter, Table};

const MAX_BUCKETS: usize = 100;
/// One per day of the default window.
const DEFAULT_BUCKETS: usize = 14;

schemas::schema_type!(Buckets = schemas::integer(MAX_BUCKETS, DEFAULT_BUCKETS));

/// The users of a segment by the time of their last visit.
#[derive(Serialize, ToSchema)]
struct SegmentHistogram {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
    /// The number of users who were seen in the segment within the window: the sum of all buckets.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    #[serde(flatten)]
    as_of: AsOf,
    /// Parts of the window of equal length, the oldest first.
    #[schema(min_items = 1)]
    buckets: Vec<HistogramBucket>,
}

impl Table for SegmentHistogram {
    const FILE_NAME: &'static str = "histogram";

    fn as_of(&self) -> &str {
        self.as_of.as_of()
    }

    fn segment(&self) -> Option<&str> {
        Some(&self.segment)
    }

    fn write(&self, csv: &mut CsvWriter) {
        let columns = ["segment", "known", "from", "to", "leave_from", "leave_to", "count"];
        csv.row(columns.into_iter().chain(Accuracy::COLUMNS).chain(AsOf::COLUMNS));
        for HistogramBucket { from, to, leave_from, leave_to, count, accuracy } in &self.buckets {
            let segment = [self.segment.as_str().into(), self.known.into()];
            let times = [from, to, leave_from, leave_to].map(|time| Cell::from(time.as_str()));
            let row = segment.into_iter().chain(times).chain([(*count).into()]).chain(Accuracy::cells(Some(accuracy)));
            csv.row(row.chain(self.as_of.cells()));
        }
    }
}

/// The users whose last visit was in a part of the window.
#[derive(Serialize, ToSchema)]
struct HistogramBucket {
    /// Their last visit was after this time.
    #[schema(format = DateTime)]
    from: String,
    /// Their last visit was at this time or before.
    #[schema(format = DateTime)]
    to: String,
    /// They leave this window after this time, unless they are seen again.
    #[schema(format = DateTime)]
    leave_from: String,
    /// They have left this window at this time, unless they were seen again.
    #[schema(format = DateTime)]
    leave_to: String,
    /// The number of users.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistogramQuery {
    /// The number of buckets, 1 to 100; 14 by default.
    #[param(inline, value_type = Option<Buckets>, example = 2)]
    pub buckets: usize,
    /// Divide this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "2d")]
    pub window: Window,
}

impl QueryParams for HistogramQuery {
    const NAMES: &'static [&'static str] = &["buckets", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let buckets = query.number("buckets", MAX_BUCKETS)?.unwrap_or(DEFAULT_BUCKETS);
        Ok(Self { buckets, window: query.window(state)? })
    }
}

/// Group the users of a segment by the time of their last visit.
///
/// `leave_from` and `leave_to` show when the users leave this window, unless they are seen again. With a shorter window
/// than the configured one, they stay in the segment for longer. The sum of all buckets is the count at that time. If
/// the segment keeps a sample of its users, so is each bucket, with an error of its own.
#[utoipa::path(
    get,
    path = "/segments/{name}/histogram",
    operation_id = "segment_histogram",
    tag = "counts",
    params(SegmentPath, HistogramQuery, FormatParam),
    responses(
        (status = 200, description = "The histogram.", content(
            (SegmentHistogram = "application/json", example = json!({
                "segment": "sports", "known": true, "count": 42, "exact": true, "window_seconds": 172800,
                "as_of": "2026-11-22T10:00:00.000Z",
                "buckets": [
                    {
                        "from": "2026-11-20T10:00:00.000Z", "to": "2026-11-21T10:00:00.000Z",
                        "leave_from": "2026-11-22T10:00:00.000Z", "leave_to": "2026-11-23T10:00:00.000Z", "count": 12, "exact": true,
                    },
                    {
                        "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z",
                        "leave_from": "2026-11-23T10:00:00.000Z", "leave_to": "2026-11-24T10:00:00.000Z", "count": 30, "exact": true,
                    },
                ],
            })),
            (String = "text/csv", example = json!(concat!(
                "segment,known,from,to,leave_from,leave_to,count,exact,error_95,window_seconds,as_of\r\n",
                "sports,true,2026-11-20T10:00:00.000Z,2026-11-21T10:00:00.000Z,",
                "2026-11-22T10:00:00.000Z,2026-11-23T10:00:00.000Z,12,true,,172800,2026-11-22T10:00:00.000Z\r\n",
            ))),
        )),
        responses::CountProblems,
    )
)]
pub async fn histogram(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    TableQuery(HistogramQuery { buckets, window }, responder): TableQuery<HistogramQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let histogram = state.estimator.histogram(&segment, window, buckets, now).await?;
    let buckets = histogram.buckets.into_iter().map(|bucket| HistogramBucket {
        from: bucket.from.to_string(),
        to: bucket.to.to_string(),
        leave_from: (bucket.from + window.duration()).to_string(),
        leave_to: (bucket.to + window.duration()).to_string(),
        count: bucket.count.count(),
        accuracy: bucket.count.into(),
    });
    Ok(responder.respond(&SegmentHistogram {
        segment: segment.to_string(),
        known: state.estimator.is_known(&segment, histogram.count.count() > 0).await?,
        count: histogram.count.count(),
        accuracy: histogram.count.into(),
        as_of: AsOf::new(window, now),
        buckets: buckets.collect(),
    }))
}
