//! `GET /segments/{name}/history`: returns the past counts of a segment.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::Accuracy;
use crate::domain::{Estimate, Timestamp, Window};
use crate::estimator::history::{self, History};
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::extract::time::QueryTime;
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;
use crate::http::table::{Cell, CsvWriter, Table};

const DEFAULT_SPAN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The past counts of a segment.
#[derive(Serialize, ToSchema)]
struct SegmentHistory {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
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
    /// The time of the first sample; null before it. Every point whose step ends at this time or earlier is null. If only
    /// the points tell it, it is the earliest of their `sampled_at`.
    #[schema(required, format = DateTime)]
    first_sampled_at: Option<String>,
    /// When the next sample is due; null if this instance doesn't sample. A time before `as_of` means that the sample is
    /// due and not complete: it is taken within a sixth of the sampling interval, or left out.
    #[schema(required, format = DateTime)]
    next_sample_at: Option<String>,
    /// A point for each step, the earliest first.
    #[schema(min_items = 1, max_items = 2000)]
    points: Vec<Point>,
}

impl Table for SegmentHistory {
    const FILE_NAME: &'static str = "history";

    fn as_of(&self) -> &str {
        &self.as_of
    }

    fn segment(&self) -> Option<&str> {
        Some(&self.segment)
    }

    fn write(&self, csv: &mut CsvWriter) {
        csv.row(["segment", "known"].into_iter().chain(Point::COLUMNS).chain(["as_of"]));
        for point in &self.points {
            let segment = [self.segment.as_str().into(), self.known.into()];
            csv.row(segment.into_iter().chain(point.cells()).chain([self.as_of().into()]));
        }
    }
}

/// The count of a segment in one step.
#[derive(Serialize, ToSchema)]
pub struct Point {
    /// The start of the step, as `from`.
    #[schema(format = DateTime)]
    at: String,
    /// The start of the step, inclusive.
    #[schema(format = DateTime)]
    from: String,
    /// The end of the step, exclusive.
    #[schema(format = DateTime)]
    to: String,
    /// The time of the last sample in the step; null if there is none. Samples have the time at which they are due; the
    /// count is taken at that time or later, by up to a sixth of the sampling interval.
    #[schema(required, format = DateTime)]
    sampled_at: Option<String>,
    /// The count of the last sample in the step; null if there is none.
    #[schema(required)]
    count: Option<u64>,
    /// Absent if the count is null.
    #[serde(flatten)]
    accuracy: Option<Accuracy>,
}

impl Point {
    /// The names of the columns of [`Self::cells`].
    pub const COLUMNS: [&str; 6] = ["from", "to", "sampled_at", "count", "exact", "error_95"];

    /// Returns the cells of a point, without `at`, which is `from`.
    pub fn cells(&self) -> [Cell<'_>; 6] {
        let [exact, error_95] = Accuracy::cells(self.accuracy.as_ref());
        let (from, to) = (self.from.as_str().into(), self.to.as_str().into());
        [from, to, self.sampled_at.as_deref().into(), self.count.into(), exact, error_95]
    }
}

impl From<&history::Point> for Point {
    fn from(&history::Point { at, to, sampled_at, count }: &history::Point) -> Self {
        let sampled_at = sampled_at.map(|at| at.to_string());
        Self {
            at: at.to_string(),
            from: at.to_string(),
            to: to.to_string(),
            sampled_at,
            count: count.map(Estimate::count),
            accuracy: count.map(Accuracy::from),
        }
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// A time in the first step; 14 days before `to` by default.
    #[param(inline, value_type = Option<schemas::Time>, example = "-14d")]
    from: Option<QueryTime>,
    /// A time in the last step; now by default.
    #[param(inline, value_type = Option<schemas::Time>, example = "-1d")]
    to: Option<QueryTime>,
    /// The length of a step: a multiple of the sampling interval, for at most 2,000 points. Steps start at multiples of
    /// this length since 1970-01-01T00:00:00Z; steps of weeks start on Mondays. The default is a round length for at most
    /// about 400 points.
    #[param(inline, value_type = Option<schemas::Window>, example = "1h")]
    step: Option<Duration>,
}

impl QueryParams for HistoryQuery {
    const NAMES: &'static [&'static str] = &["from", "to", "step"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let (from, to) = (query.time("from")?, query.time("to")?);
        Ok(Self { from, to, step: query.one("step", |text| parse_step(text, &state.history))? })
    }
}

/// The resolved parameters of a history.
pub struct Range {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: Duration,
}

impl HistoryQuery {
    /// Whether the history ends now.
    pub const fn is_until_now(&self) -> bool {
        self.to.is_none()
    }

    /// Returns the times and the step at `now`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the times are in the wrong order, or there are too many steps.
    pub fn resolve(self, now: Timestamp, history: &History) -> Result<Range> {
        let to = self.to.map_or(now, |to| to.resolve(now));
        let from = self.from.map_or(to - DEFAULT_SPAN, |from| from.resolve(now));
        if from > to {
            return Err(Problem::invalid_field("from", format!("must not be later than to, which is {to}")));
        }
        let step = self.step.unwrap_or_else(|| history.default_step(from, to));
        let (steps, max) = (History::steps(from, to, step), History::MAX_POINTS);
        if steps > max {
            let why = format!("gives {steps} points, and the maximum is {max}; choose a longer step");
            return Err(Problem::invalid_field("step", why));
        }
        Ok(Range { from, to, step })
    }
}

impl Range {
    /// Returns the starts of the first and the last step.
    pub fn step_starts(&self) -> [String; 2] {
        [self.from, self.to].map(|time| History::step_start(time, self.step).to_string())
    }
}

fn parse_step(text: &str, history: &History) -> std::result::Result<Duration, String> {
    let step = Window::parse(text)?.duration();
    match history.interval() {
        Some(interval) if !step.as_secs().is_multiple_of(interval.as_secs()) => {
            Err(format!("must be a multiple of the interval of {}", humantime::format_duration(interval)))
        }
        _ => Ok(step),
    }
}

/// Get the past counts of a segment.
///
/// The service samples the counts of all segments periodically, every hour by default, and keeps the samples for 13
/// months. Each step has one point: the last sample in it with its time, `sampled_at`. Both are null if there is none
/// because nothing was sampled or the segment had no users. The first samples of a new service are those of
/// `next_sample_at`: of the last tick of the interval if at most a sixth of the interval has passed since, else of the next.
/// A count has the accuracy that it had when it was taken.
#[utoipa::path(
    get,
    path = "/segments/{name}/history",
    operation_id = "segment_history",
    tag = "counts",
    params(SegmentPath, HistoryQuery, FormatParam),
    responses(
        (status = 200, description = "The history.", content(
            (SegmentHistory = "application/json", example = json!({
                "segment": "sports", "known": true, "from": "2026-11-22T08:00:00.000Z", "to": "2026-11-22T10:00:00.000Z",
                "step_seconds": 3600,
                "as_of": "2026-11-22T10:24:07.310Z", "first_sampled_at": "2026-09-01T00:00:00.000Z",
                "next_sample_at": "2026-11-22T11:00:00.000Z", "points": [
                    {
                        "at": "2026-11-22T08:00:00.000Z", "from": "2026-11-22T08:00:00.000Z", "to": "2026-11-22T09:00:00.000Z",
                        "sampled_at": "2026-11-22T08:00:00.000Z", "count": 40, "exact": true,
                    },
                    {
                        "at": "2026-11-22T09:00:00.000Z", "from": "2026-11-22T09:00:00.000Z", "to": "2026-11-22T10:00:00.000Z",
                        "sampled_at": null, "count": null,
                    },
                    {
                        "at": "2026-11-22T10:00:00.000Z", "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T11:00:00.000Z",
                        "sampled_at": "2026-11-22T10:00:00.000Z", "count": 42, "exact": true,
                    },
                ],
            })),
            (String = "text/csv", example = json!(concat!(
                "segment,known,from,to,sampled_at,count,exact,error_95,as_of\r\n",
                "sports,true,2026-11-22T08:00:00.000Z,2026-11-22T09:00:00.000Z,2026-11-22T08:00:00.000Z,40,true,,",
                "2026-11-22T10:24:07.310Z\r\n",
                "sports,true,2026-11-22T09:00:00.000Z,2026-11-22T10:00:00.000Z,,,,,2026-11-22T10:24:07.310Z\r\n",
            ))),
        )),
        responses::CountProblems,
    )
)]
pub async fn history(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    TableQuery(range, responder): TableQuery<HistoryQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let range = range.resolve(now, &state.history)?;
    let names = [&segment];
    // Before the points, so that these have all samples before it.
    let next_sample_at = state.history.next_sample_at(now).await?;
    let points = state.history.of(&segment, range.from, range.to, range.step);
    let (points, changes) = tokio::try_join!(points, state.estimator.changes_of(&names, now))?;
    let first_in_points = points.iter().find_map(|point| point.sampled_at);
    // The change record is added after the samples, and earlier versions had none.
    let first_sampled_at = changes[0].first_sampled_at.into_iter().chain(first_in_points).min();
    let known = state.estimator.is_known(&segment, first_in_points.is_some()).await?;
    let [from, to] = range.step_starts();
    Ok(responder.respond(&SegmentHistory {
        segment: segment.to_string(),
        known,
        from,
        to,
        step_seconds: range.step.as_secs(),
        as_of: now.to_string(),
        first_sampled_at: first_sampled_at.map(|at| at.to_string()),
        next_sample_at: next_sample_at.map(|at| at.to_string()),
        points: points.iter().map(Point::from).collect(),
    }))
}
