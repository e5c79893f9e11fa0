//! Conversions from the errors of the other rooms into problems.

use std::borrow::Cow;

use axum::http::HeaderValue;

use super::problem::{Problem, ProblemKind};
use crate::auth::AuthError;
use crate::domain::FieldError;
use crate::domain::visit_json::VisitError;
use crate::estimator::overlap::OverlapError;
use crate::estimator::{CostlyReads, Error as EstimatorError, MemberListError, TooMany};
use crate::redis;
use crate::store;

impl From<TooMany> for Problem {
    fn from(error: TooMany) -> Self {
        let kind = match error.reads {
            CostlyReads::Overlaps => ProblemKind::TooManyOverlaps,
            CostlyReads::Lists => ProblemKind::TooManyLists,
            CostlyReads::Members => ProblemKind::TooManyMemberLists,
        };
        let detail = format!("Nothing was done: {error}. Repeat the request after the seconds in Retry-After.");
        Self::new(kind, detail)
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if let store::Error::Overloaded(_) = error {
            let detail = format!("Nothing was done: {error}. Repeat the request after the seconds in Retry-After.");
            return Self::new(ProblemKind::Overloaded, detail).with_cause(error);
        }
        if let store::Error::TooManySegments(max) = error {
            let detail = format!(
                "Nothing was written: the visit would create a segment beyond the maximum of {max}. Correct the segment's name, \
                 or have the operator raise max_segments. Empty segments don't count."
            );
            let errors = vec![over_limit("segment", max)];
            return Self::new(ProblemKind::TooManySegments, detail).with_errors(errors).with_cause(error);
        }
        let detail = match error {
            store::Error::ForeignKey(_) => {
                "A key in Redis that this request needs holds a value of another program, which stays as it is. Have the operator \
                 rename the key, which the service's log names; a repetition fails until then."
            }
            store::Error::Redis(redis::Error::NotReplicated { .. }) => {
                "Redis has done the write, but too few of its replicas have it, so it may be lost. Repeat the request; a visit without \
                 seen_at counts from the repetition."
            }
            store::Error::Redis(redis::Error::NoWaitAof) => {
                "Redis has done the write, but can't report whether its replicas have it on disk: write_acks_on_disk requires \
                 Redis 7.2 or later, or Valkey."
            }
            store::Error::Redis(redis::Error::Refused { ref code, .. }) if code == "OOM" => {
                "Redis's memory is full: it accepts no visits until the operator raises its maxmemory (redis_max_memory for the \
                 private Redis) or users expire. Counts still work. Repeat the request later; a visit without seen_at counts \
                 from the repetition."
            }
            store::Error::Redis(ref error) if error.is_refusal_of_a_replica() => {
                "Redis is a replica now: it refuses visits, and its counts may be stale. Repeat the request, which succeeds once the \
                 service reaches a primary; a visit without seen_at counts from the repetition."
            }
            _ => {
                "Redis didn't answer, or answered with an error. A count is unknown; a write may or may not have been done. \
                 Repeat the request; a visit without seen_at counts from the repetition."
            }
        };
        Self::new(ProblemKind::Unavailable, detail).with_cause(error)
    }
}

/// Returns the problem of a visit to several segments. Those that are `fields` of the request would be beyond the maximum
/// of `max` segments, and the visits to the others are recorded.
pub fn too_many_segments(max: u64, fields: impl IntoIterator<Item = Cow<'static, str>>) -> Problem {
    let detail = format!(
        "No visit to the segments in errors was written: each would be new, beyond the maximum of {max}. The visits to the other \
         segments of the request are recorded. Correct the names, or have the operator raise max_segments. Empty segments don't \
         count."
    );
    let errors = fields.into_iter().map(|field| over_limit(field, max)).collect();
    Problem::new(ProblemKind::TooManySegments, detail)
        .with_errors(errors)
        .with_cause(store::Error::TooManySegments(max))
}

fn over_limit(field: impl Into<Cow<'static, str>>, max: u64) -> FieldError {
    FieldError::new(field, format!("would be new, and the maximum number of segments, {max}, is reached"))
}

impl From<EstimatorError> for Problem {
    fn from(error: EstimatorError) -> Self {
        match error {
            EstimatorError::Store(error) => error.into(),
            EstimatorError::TooMany(error) => error.into(),
            EstimatorError::WindowTooLong(_) => Self::invalid_field("window", error.to_string()),
        }
    }
}

impl From<MemberListError> for Problem {
    fn from(error: MemberListError) -> Self {
        match error {
            MemberListError::Store(error) => error.into(),
            MemberListError::Sampled { .. } => {
                let detail = format!(
                    "{error}, so a list of them would look complete; repeat the request with sample=true to get the sample, with \
                     the weight of each line"
                );
                Self::new(ProblemKind::Sampled, detail)
            }
            // It affects no answer that has not begun.
            MemberListError::SampleChanged => Self::new(
                ProblemKind::Unavailable,
                "The segment keeps a smaller sample since the list began. Repeat the request.",
            ),
        }
    }
}

impl From<OverlapError> for Problem {
    fn from(error: OverlapError) -> Self {
        match error {
            OverlapError::Store(error) => error.into(),
            OverlapError::TooMany(error) => error.into(),
            OverlapError::Stopping => Self::stopping(),
            OverlapError::WindowTooLong(_) => Self::invalid_field("window", error.to_string()),
            OverlapError::Timeout(_) => {
                let detail = format!(
                    "The request was aborted: {error}. Ask for fewer or smaller segments or a shorter window, or have the operator \
                     raise overlap_timeout."
                );
                Self::new(ProblemKind::RequestTimeout, detail)
            }
        }
    }
}

impl From<VisitError> for Problem {
    fn from(error: VisitError) -> Self {
        match error {
            VisitError::NotJson(why) => Self::new(ProblemKind::Malformed, format!("The body is {why}.")),
            VisitError::SeveralValues(_) => Self::new(
                ProblemKind::Malformed,
                format!("The body is {error}. Send several visits to /segments/batch."),
            ),
            VisitError::NotAnObject(_) => Self::new(ProblemKind::Invalid, format!("The body is not a visit: {error}.")),
            VisitError::Fields(errors) => Self::invalid(errors),
        }
    }
}

/// Adds the challenge of RFC 6750, section 3.
impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        let (kind, challenge) = match &error {
            AuthError::NoToken => (ProblemKind::Unauthorized, String::new()),
            AuthError::Malformed | AuthError::PasswordRefused | AuthError::NotAccepted(_) => {
                (ProblemKind::Unauthorized, format!(r#", error="invalid_token", error_description="{detail}""#))
            }
            AuthError::InsufficientScope { scope, .. } => {
                (ProblemKind::InsufficientScope, format!(r#", error="insufficient_scope", scope="{scope}""#))
            }
        };
        let challenge = HeaderValue::try_from(format!(r#"Bearer realm="segment-estimator"{challenge}"#));
        Self::new(kind, detail).with_challenge(challenge.expect("the texts have neither quotes nor control characters"))
    }
}
