//! An example of each kind of problem, made where the service makes them, so that the document shows its own words.

use std::io;
use std::time::Duration;

use axum::http::HeaderMap;

use crate::auth::{Denied, Flaw, Scope};
use crate::domain::{Timestamp, visit_json};
use crate::estimator::concurrency_limit::{CostlyReads, TooMany};
use crate::http::api::batch::failures;
use crate::http::extract::body::{self, MediaType};
use crate::http::middleware::endpoint;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::server::host;
use crate::ingest::{Ingest, LineError, Report};
use crate::store;

/// The default of the settings.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_WAITING: usize = 10_000;
const MAX_OVERLAPS: usize = 2;
const MAX_LISTS: usize = 16;
const MAX_SEGMENTS: u64 = 10_000;

/// A problem of this kind that is not about a batch.
pub fn alone(kind: ProblemKind) -> Problem {
    match kind {
        ProblemKind::Malformed => of_a_visit(b"user_id=u104010"),
        ProblemKind::Unauthorized => Denied::NoToken.into(),
        ProblemKind::InsufficientScope => {
            Denied::Insufficient { holder: "analyst".to_owned(), scope: Scope::WriteSegments }.into()
        }
        ProblemKind::NotFound => Problem::not_found(),
        ProblemKind::MethodNotAllowed => Problem::method_not_allowed(),
        ProblemKind::BodyTimeout => body::too_slow(BODY_TIMEOUT),
        ProblemKind::BodyTooLarge => body::too_large(Ingest::MAX_LINE_BYTES),
        ProblemKind::UnsupportedMediaType => {
            let checked = body::media_type(&HeaderMap::new(), &[MediaType::Json]);
            checked.expect_err("no header declares a type")
        }
        ProblemKind::Misdirected => host::misdirected(),
        ProblemKind::Invalid => of_a_visit(br#"{"user_id":"","segment":"sports","seenat":1}"#),
        ProblemKind::TooManySegments => store::Error::TooManySegments(MAX_SEGMENTS).into(),
        ProblemKind::TooManyRejected => failures::too_many_rejected(),
        ProblemKind::TooManyOverlaps => TooMany { reads: CostlyReads::Overlaps, max: MAX_OVERLAPS }.into(),
        ProblemKind::TooManyLists => TooMany { reads: CostlyReads::Lists, max: MAX_LISTS }.into(),
        ProblemKind::Internal => Problem::of_panic(&"an example"),
        ProblemKind::Unavailable => store::Error::Lost("an example".to_owned()).into(),
        ProblemKind::Overloaded => store::Error::Overloaded(MAX_WAITING).into(),
        ProblemKind::RequestTimeout => endpoint::too_late(REQUEST_TIMEOUT),
        ProblemKind::Stopping => Problem::stopping(),
    }
}

/// A problem of this kind in the middle of a batch.
pub fn in_a_batch(kind: ProblemKind) -> Problem {
    let (problem, accepted) = match kind {
        ProblemKind::BodyTooLarge => return failures::too_many(1_001),
        ProblemKind::Malformed => {
            let cut_off = axum::Error::new(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of file"));
            (body::unreadable(&cut_off), 17)
        }
        ProblemKind::Unauthorized => (Denied::NotAccepted(Flaw::Expired).into(), 17),
        ProblemKind::BodyTimeout => (failures::too_quiet(BODY_TIMEOUT), 17),
        ProblemKind::Invalid => (failures::all_rejected(""), 0),
        ProblemKind::Overloaded => (failures::not_written(store::Error::Overloaded(8)), 17),
        ProblemKind::Stopping => (failures::broken_off(), 17),
        kind => (alone(kind), 17),
    };
    let error = LineError { line: accepted + 1, field: Some("user_id".into()), detail: "must not be empty".to_owned() };
    problem.with_report(Report {
        accepted,
        rejected: 1,
        errors: vec![error],
        done_through_line: accepted + 1,
        ..Report::default()
    })
}

fn of_a_visit(json: &[u8]) -> Problem {
    visit_json::parse(json, Timestamp::from_millis(0)).expect_err("it is no visit").into()
}
