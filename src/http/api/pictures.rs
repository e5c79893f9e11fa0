//! `GET /segments/{name}/history.svg` and `histogram.svg`: the charts of a segment as pictures, for reports.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use utoipa::IntoParams;
use utoipa::openapi::{Object, ObjectBuilder, Type};

use super::histogram::HistogramQuery;
use super::history::{HistoryQuery, Range};
use crate::domain::{SegmentName, Timestamp};
use crate::http::charts::history::PastCounts;
use crate::http::charts::picture::{Look, Picture, Theme};
use crate::http::charts::{Chart, histogram as last_seen};
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::format;
use crate::http::pages::names::visible;
use crate::http::problem::Result;
use crate::http::state::AppState;

/// Parameters of each picture.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description; `look` parses the parameters")]
struct LookQuery {
    /// The colors; `light` by default.
    #[param(inline, value_type = Option<PictureTheme>, example = "dark")]
    theme: PictureTheme,
    /// The width in pixels; 800 by default.
    #[param(inline, value_type = Option<PictureWidth>, example = 600)]
    width: u16,
    /// The height in pixels; 400 by default.
    #[param(inline, value_type = Option<PictureHeight>, example = 300)]
    height: u16,
}

schemas::schema_type!(PictureTheme = schemas::one_of(Theme::NAMES));
schemas::schema_type!(PictureWidth = pixels(Look::WIDTHS, Look::DEFAULT.width));
schemas::schema_type!(PictureHeight = pixels(Look::HEIGHTS, Look::DEFAULT.height));

fn pixels([min, max]: [u16; 2], default: u16) -> Object {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max));
    number.default(Some(default.into())).build()
}

fn look(query: &Parameters) -> Result<Look> {
    let theme = |name: &str| Theme::parse(name).ok_or_else(|| format!("must be {}", Theme::NAMES.join(" or ")));
    let pixels = |name, [min, max]: [u16; 2]| {
        query.one(name, |text| {
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.ok_or_else(|| format!("must be a number of pixels from {min} to {max}"))
        })
    };
    Ok(Look {
        theme: query.one("theme", theme)?.unwrap_or(Look::DEFAULT.theme),
        width: pixels("width", Look::WIDTHS)?.unwrap_or(Look::DEFAULT.width),
        height: pixels("height", Look::HEIGHTS)?.unwrap_or(Look::DEFAULT.height),
    })
}

pub struct HistoryPictureQuery {
    history: HistoryQuery,
    look: Look,
}

impl QueryParams for HistoryPictureQuery {
    const NAMES: &'static [&'static str] = &["from", "to", "step", "theme", "width", "height"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self { history: HistoryQuery::parse(query, state)?, look: look(query)? })
    }
}

pub struct HistogramPictureQuery {
    histogram: HistogramQuery,
    look: Look,
}

impl QueryParams for HistogramPictureQuery {
    const NAMES: &'static [&'static str] = &["buckets", "window", "theme", "width", "height"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self { histogram: HistogramQuery::parse(query, state)?, look: look(query)? })
    }
}

/// The subtitle of a picture without a segment, which would look like that of an empty segment.
const UNKNOWN: &str = "No such segment";

/// Get the past counts of a segment as a picture.
///
/// The SVG document needs no other file. A picture of a past time, `from` and `to`, stays the same. Without `to`, it
/// ends with the count of this moment as a hollow point. A picture of an unknown segment says so.
#[utoipa::path(
    get,
    path = "/segments/{name}/history.svg",
    operation_id = "segment_history_picture",
    tag = "counts",
    params(SegmentPath, HistoryQuery, LookQuery),
    responses(
        (status = 200, description = "The picture.", body = String, content_type = "image/svg+xml"),
        responses::CountProblems,
    )
)]
pub async fn history(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    StrictQuery(HistoryPictureQuery { history, look }): StrictQuery<HistoryPictureQuery>,
) -> Result<Response> {
    /// As many as the hourly samples of 13 months. More frequent ones are thinned out.
    const MAX_READ: u64 = 10_000;
    let now = state.synced_now().await?;
    let is_until_now = history.is_until_now();
    let Range { from, to, step } = history.resolve(now, &state.history)?;
    let read_step = state.history.step_for(from, to, MAX_READ);
    // Each step of the picture consists of whole steps.
    let read_step = if step.as_millis().is_multiple_of(read_step.as_millis()) { read_step } else { step };
    let points = state.history.of_until(&segment, from, to, read_step).await?;
    let mut past = PastCounts { points: &points, from, to, step, live: None };
    if is_until_now && past.has_samples() {
        past.live = Some(state.estimator.estimate(&segment, now).await?);
    }
    let chart = past.chart();
    let counted = if state.estimator.is_known(&segment, past.has_samples()).await? {
        let window = format::last(state.estimator.window().duration());
        &format!("Users seen in the {window}, every {}", format::every(step))
    } else {
        UNKNOWN
    };
    let time = |at: Timestamp| format!("{}, {}", format::date(at), format::hour(at));
    Ok(picture(&state, &segment, [counted, &format!("{} to {} UTC", time(from), time(to))], &chart, look))
}

/// Get the users of a segment by the time of their last visit, as a picture.
///
/// The SVG document needs no other file. It shows this moment, and says so. A picture of an unknown segment says so.
#[utoipa::path(
    get,
    path = "/segments/{name}/histogram.svg",
    operation_id = "segment_histogram_picture",
    tag = "counts",
    params(SegmentPath, HistogramQuery, LookQuery),
    responses(
        (status = 200, description = "The picture.", body = String, content_type = "image/svg+xml"),
        responses::CountProblems,
    )
)]
pub async fn histogram(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    StrictQuery(HistogramPictureQuery { histogram, look }): StrictQuery<HistogramPictureQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let HistogramQuery { buckets, window } = histogram;
    let histogram = state.estimator.histogram(&segment, window, buckets, now).await?;
    let chart = last_seen::chart(&histogram, window, state.estimator.window());
    let counted = format!(
        "{} in the {}, as of {}, {} UTC",
        format::counted_users_with_error(histogram.count),
        format::last(window.duration()),
        format::date(now),
        format::second(now),
    );
    let is_known = state.estimator.is_known(&segment, histogram.count.count() > 0).await?;
    let note = if is_known { "Each user is counted once, at the most recent visit" } else { UNKNOWN };
    Ok(picture(&state, &segment, [note, &counted], &chart, look))
}

/// Returns 200 with the picture of `chart`. As all answers, it is not cached. Any page may embed it. With access
/// control, only pages of the same site may: a browser adds its user's password to the request of any page.
fn picture(state: &AppState, segment: &SegmentName<'_>, subtitles: [&str; 2], chart: &Chart, look: Look) -> Response {
    const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let svg = Picture { title: &visible(segment.as_str()), subtitles, chart, look }.svg();
    let embedders = if state.authenticator.is_open() { "cross-origin" } else { "same-site" };
    let policy = HeaderValue::try_from(look.theme.content_security_policy()).expect("a policy is ASCII");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, policy),
        (RESOURCE_POLICY, HeaderValue::from_static(embedders)),
    ];
    (headers, svg).into_response()
}
