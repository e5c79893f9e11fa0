//! `POST /segments`: records a visit, or one for each of several segments.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};

use crate::auth::KeyUsage;
use crate::domain::{Segments, Timestamp, Visit, Visits, visit_json};
use crate::estimator::{Estimator, Recorded};
use crate::http::docs::openapi::{responses, schemas};
use crate::http::errors;
use crate::http::extract::auth::{Authorized, Write};
use crate::http::extract::body::VisitBody;
use crate::http::extract::prefer::{PREFERENCE_APPLIED, RETURN_REPRESENTATION, WantsRepresentation};
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;
use crate::store;

/// The query parameters of a visit.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VisitQuery {
    /// `true` validates the visit and writes nothing. The answer is that of a visit. False by default.
    #[param(inline, value_type = Option<schemas::Flag>, example = false)]
    dry_run: bool,
}

impl QueryParams for VisitQuery {
    const NAMES: &'static [&'static str] = &["dry_run"];

    fn parse(query: &Parameters, _: &AppState) -> Result<Self> {
        Ok(Self { dry_run: query.flag("dry_run")? })
    }
}

/// The outcome of a visit.
#[derive(Serialize, ToSchema)]
struct RecordedVisit {
    /// `accepted` if Redis has acknowledged the visit; `expired` if it is older than the window and was not stored.
    #[schema(schema_with = result_schema)]
    result: &'static str,
    /// True if `dry_run=true` asked to validate only. Nothing was written then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dry_run: bool,
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The segment, if the visit has `segment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::segment, required = false)]
    segment: Option<String>,
    /// The segments, if the visit has `segments`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<schemas::SegmentName>, required = false)]
    segments: Option<Vec<String>>,
    /// The time of the visit: its `seen_at`, or the time of the request if it has none or a later one. A later visit of
    /// the user to the segment that is already in Redis stays.
    #[schema(format = DateTime)]
    seen_at: String,
}

fn result_schema() -> Object {
    schemas::one_of(["accepted", "expired"])
}

impl RecordedVisit {
    /// Returns the outcome of `visits` before it is known: they are accepted.
    fn of(visits: &Visits<'_>, dry_run: bool) -> Self {
        let (segment, segments) = match &visits.segments {
            Segments::One(name) => (Some(name.to_string()), None),
            Segments::List(names) => (None, Some(names.iter().map(ToString::to_string).collect())),
        };
        let (user_id, seen_at) = (visits.user_id.as_str().to_owned(), visits.seen_at.to_string());
        Self { result: "accepted", dry_run, user_id, segment, segments, seen_at }
    }
}

/// Record a visit.
///
/// 204 once Redis has acknowledged it. A visit that is older than the window is acknowledged, but not stored. With
/// `Prefer: return=representation` the answer is 200 with the outcome.
///
/// A visit may have `segments`, an array of up to 100 names, in place of `segment`. Each name is a visit of its own at the
/// same time. 204 means that Redis has acknowledged all of them. 503 means that at least one is not acknowledged: repeat the
/// request. If a name is invalid, nothing is written. A segment beyond the limit on segments is 422, with the name in
/// `errors`, and the visits to the others are recorded.
///
/// Repeating the request is harmless if the visit has a `seen_at`. Without one, the time of the repetition counts.
/// Repeating it after the user was deleted brings the user back.
#[utoipa::path(
    post,
    path = "/segments",
    operation_id = "record_visit",
    tag = "visits",
    params(VisitQuery, (
        "prefer" = inline(Option<String>),
        Header,
        description = "`return=representation` asks for the outcome of the visit. Other preferences are ignored.",
        example = json!("return=representation")
    )),
    request_body(content = schemas::Visit, description = "A visit, in at most 16 KiB, not compressed.", examples(
        ("a visit" = (summary = "Seen now", value = json!({ "user_id": "u104010", "segment": "sports" }))),
        ("several segments" = (summary = "Seen now in several segments", value = json!(
            { "user_id": "u104010", "segments": ["sports", "news"] }
        ))),
        ("with a time in seconds" = (summary = "Seen at a time in Unix seconds (expired: not stored)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": 1714557600.25 }
        ))),
        ("with a time in RFC 3339" = (summary = "Seen at a time in RFC 3339 (expired: not stored)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": "2024-05-01T10:00:00+02:00" }
        ))),
    )),
    responses(
        (
            status = 200,
            description = "The outcome of the visit, if `Prefer: return=representation` asks for it.",
            body = RecordedVisit,
            headers(("preference-applied" = String, description = "`return=representation`")),
            example = json!({
                "result": "accepted", "user_id": "u104010", "segment": "sports", "seen_at": "2026-11-22T10:00:00.000Z",
            })
        ),
        (status = 204, description = "The visit is recorded, or older than the window."),
        responses::VisitProblems,
    )
)]
pub async fn record(
    caller: Authorized<Write>,
    State(state): State<Arc<AppState>>,
    StrictQuery(VisitQuery { dry_run }): StrictQuery<VisitQuery>,
    WantsRepresentation(wants_representation): WantsRepresentation,
    VisitBody(body): VisitBody,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let visits = visit_json::parse(&body, now).inspect_err(|error| {
        if !dry_run {
            state.metrics.visits.rejected(error.kind());
        }
    });
    let visits = visits?.into_owned();
    // While the visits wait for Redis, the connection can reuse its read buffer, which the body is a part of.
    drop(body);
    // Boxed, as the visits to several segments are: keeps them out of the futures of most visits.
    let shown = wants_representation.then(|| Box::new(RecordedVisit::of(&visits, dry_run)));
    let recorded = match visits {
        visits if dry_run => validated(&state.estimator, &visits, now),
        Visits { user_id, segments: Segments::One(segment), seen_at } => {
            let recorded = state.estimator.record(Visit { user_id, segment, seen_at }, now).await?;
            count(caller.usage(), recorded);
            recorded
        }
        visits => Box::pin(record_all(&state.estimator, visits, now, caller.usage())).await?,
    };
    let Some(mut shown) = shown else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    if recorded == Recorded::Expired {
        shown.result = "expired";
    }
    Ok(([(PREFERENCE_APPLIED, RETURN_REPRESENTATION)], json(&*shown)).into_response())
}

/// Counts an accepted visit for the caller's key.
fn count(usage: Option<&Arc<KeyUsage>>, recorded: Recorded) {
    if let (Some(usage), Recorded::Accepted) = (usage, recorded) {
        usage.visits(1);
    }
}

/// Returns the outcome that `visits` would have.
fn validated(estimator: &Estimator, visits: &Visits<'_>, now: Timestamp) -> Recorded {
    if estimator.is_expired(visits.seen_at, now) { Recorded::Expired } else { Recorded::Accepted }
}

/// Records the visits to a list of segments.
///
/// # Errors
///
/// The problem of the visit with the most severe failure. An outage is more severe than the failure of a key, which is more
/// severe than the limit on segments.
async fn record_all(
    estimator: &Estimator,
    visits: Visits<'static>,
    now: Timestamp,
    usage: Option<&Arc<KeyUsage>>,
) -> Result<Recorded> {
    let mut recorded = Recorded::Accepted;
    let (mut failure, mut over_limit) = (None::<store::Error>, Vec::new());
    for (index, result) in estimator.record_all(&visits, now).await.into_iter().enumerate() {
        match result {
            Ok(outcome) => {
                count(usage, outcome);
                recorded = outcome;
            }
            Err(store::Error::TooManySegments(max)) => over_limit.push((index, max)),
            Err(error) if failure.as_ref().is_none_or(|worst| !worst.is_outage()) => failure = Some(error),
            Err(_) => {}
        }
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    match over_limit.first() {
        None => Ok(recorded),
        Some(&(_, max)) => {
            let fields = over_limit.iter().map(|(index, _)| visits.segments.field(*index));
            Err(errors::too_many_segments(max, fields))
        }
    }
}
