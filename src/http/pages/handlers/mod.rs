//! Handlers of the pages. Their parameters have the same checks as those of the API. Unknown ones are ignored, because
//! chat tools and link trackers add them.

mod audience;
mod choice;
mod list;
mod overlap;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;

pub use self::audience::{__path_audience, audience};
pub use self::list::{__path_list, list};
pub use self::overlap::{__path_overlap, overlap};
use super::auth::PageAuth;
use super::curl::BaseUrl;
use super::history::{History, Moment};
use super::ranges::{self, DEFAULT_DAYS};
use super::response::html;
use super::segment::{self, Segment};
use super::unknown;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};
use crate::estimator::Change;
use crate::http::charts::histogram;
use crate::http::charts::history::PastCounts;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::query::{LenientQuery, Parameters, QueryParams};
use crate::http::extract::time::QueryTime;
use crate::http::problem::{Problem, Result};
use crate::http::similar_names::similar_names;
use crate::http::state::AppState;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SegmentPageQuery {
    /// The segment's name.
    #[param(inline, value_type = schemas::SegmentName, example = "sports")]
    name: SegmentName<'static>,
    /// A window shorter than the configured one.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
    /// The range of the history in days. The chart begins at the first sample if that is later.
    #[param(inline, value_type = Option<Days>, example = "7")]
    days: u64,
    /// Show the count at this time, too: as in the API, or without its offset, which is then that of UTC.
    #[param(inline, value_type = Option<MomentText>, example = "2026-11-21T15:00")]
    at: Option<QueryTime>,
}

/// Longer than any time in RFC 3339 with nanoseconds and an offset.
const MAX_MOMENT_BYTES: usize = 40;

schemas::schema_type!(MomentText = schemas::text(MAX_MOMENT_BYTES));
schemas::schema_type!(Days = schemas::one_of(ranges::RANGES.map(|(days, _)| days.to_string())));

impl QueryParams for SegmentPageQuery {
    const NAMES: &'static [&'static str] = &["name", "window", "days", "at"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        let name = query.one("name", |name| SegmentName::parse(name.to_owned()).map_err(|error| error.detail))?;
        Ok(Self {
            name: name.ok_or_else(|| Problem::invalid_field("name", "is required"))?,
            window: query.window(state)?,
            days: query.one("days", ranges::parse)?.unwrap_or(DEFAULT_DAYS),
            at: query.one("at", parse_moment)?.flatten(),
        })
    }
}

/// Parses a time of the form, whose field has times without seconds and offset and may be empty.
fn parse_moment(text: &str) -> std::result::Result<Option<QueryTime>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_MOMENT_BYTES {
        return Err(format!("must have at most {MAX_MOMENT_BYTES} bytes"));
    }
    let in_utc = ["Z", ":00Z"].iter().find_map(|rest| Timestamp::from_rfc3339(&format!("{text}{rest}")));
    in_utc.map(QueryTime::At).map_or_else(|| QueryTime::parse(text), Ok).map(Some)
}

/// Show a segment.
///
/// The page has its count, when its users were last seen, and its past counts, for people.
#[utoipa::path(
    get,
    path = "/pages/segment",
    operation_id = "page_segment",
    tag = "pages",
    params(SegmentPageQuery),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), responses::PageProblems)
)]
pub async fn segment(
    _: PageAuth,
    State(state): State<Arc<AppState>>,
    base_url: BaseUrl,
    LenientQuery(SegmentPageQuery { name, window, days, at }): LenientQuery<SegmentPageQuery>,
) -> Result<Response> {
    /// For the extremes of each day. Hourly samples of 13 months are a tenth of it.
    const MAX_READ: u64 = 100_000;
    let now = state.synced_now().await?;
    let histogram = state.estimator.histogram(&name, window, histogram::buckets(window), now).await?;
    if !state.estimator.is_known(&name, histogram.count.count() > 0).await? {
        return Ok(html(unknown::page(name.as_str(), &similar_names(&state, &[&name]).await.concat())));
    }
    let changes = state.estimator.changes_of(&[&name], now).await?[0];
    let first_sampled_at = changes.first_sampled_at;
    let from = ranges::start(days, first_sampled_at, now);
    let earliest = from - PastCounts::WEEK;
    let read_step = state.history.step_for(earliest, now, MAX_READ);
    let points = match state.history.of(&name, earliest, now, read_step).await {
        Err(error) if error.is_wrong_type() => None,
        points => Some(points?),
    };
    let configured = state.estimator.window();
    let live = if window == configured { histogram.count } else { state.estimator.estimate(&name, now).await? };
    let moment = match at.map(|at| at.resolve(now)) {
        Some(at) => moment(&state, &name, at).await?,
        None => None,
    };
    let history = History {
        days,
        moment,
        from,
        points,
        step: state.history.step_for(from, now, PastCounts::MAX_POINTS),
        interval: state.history.interval(),
        first_sampled_at,
        live,
    };
    let leaving = leaving(&state, &name, live, now).await?;
    // The page has the live count, so its change ends with that, as its chart does.
    let change = changes.week.map(|week| Change { after: live, to: now, ..week });
    let segment = Segment { name: name.as_str(), histogram, now, window, configured, history, change, leaving };
    Ok(html(segment::page(&segment, &base_url)))
}

/// Returns the last sample at `at`; `None` if the history's key belongs to another program.
async fn moment(state: &AppState, segment: &SegmentName<'_>, at: Timestamp) -> Result<Option<Moment>> {
    let step = state.history.step_for(at, at, 1);
    let mut points = Vec::new();
    for time in [at - PastCounts::WEEK, at] {
        match state.history.of(segment, time, time, step).await {
            Err(error) if error.is_wrong_type() => return Ok(None),
            step => points.extend(step?),
        }
    }
    let to = points.last().map_or(at, |point| point.to);
    let past = PastCounts { points: &points, from: at, to, step, live: None };
    let counts = points.iter().filter_map(|point| point.count).collect();
    Ok(Some(Moment { at, counts, reading: past.chart().chief_reading().1.to_owned() }))
}

/// Returns how many of the `all` users of `segment` leave within a day unless they return; `None` if the window is too
/// short.
async fn leaving(
    state: &AppState,
    segment: &SegmentName<'_>,
    all: Estimate,
    now: Timestamp,
) -> Result<Option<Estimate>> {
    const DAY: Duration = Duration::from_secs(86_400);
    let shorter = state.estimator.window().duration().checked_sub(DAY).map(Window::new);
    let Some(Ok(shorter)) = shorter else { return Ok(None) };
    let staying = state.estimator.estimate_within(segment, shorter, now).await?;
    Ok(Some(all.without(staying)))
}
