//! Examples of all problems, made by the functions that the service itself calls.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;

use crate::auth::{AuthError, Principal, Scope, Scopes, TokenError};
use crate::domain::{Depth, SegmentName, Timestamp, visit_json};
use crate::estimator::{CostlyReads, MemberListError, TooMany};
use crate::http::api::batch::{array, problems};
use crate::http::extract::body::{self, MediaType};
use crate::http::middleware::endpoint;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::server::misdirected;
use crate::ingest::{Ingest, LineError, Report};
use crate::redis;
use crate::store;

// The defaults of the settings, which this room doesn't know. A test of the document compares them.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_WAITING: usize = 10_000;
const MAX_OVERLAPS: usize = 2;
const MAX_LISTS: usize = 16;
const MAX_MEMBER_LISTS: usize = 4;
const MAX_SEGMENTS: u64 = 10_000;

/// Returns a problem of this kind for a request other than a batch.
pub fn of_request(kind: ProblemKind) -> Problem {
    match kind {
        ProblemKind::Malformed => of_visit(b"user_id=u104010"),
        ProblemKind::Unauthorized => AuthError::NoToken.into(),
        ProblemKind::InsufficientScope => {
            let principal = Arc::new(Principal::new("analyst".to_owned(), Scopes::default()));
            AuthError::InsufficientScope { principal, scope: Scope::WriteSegments }.into()
        }
        ProblemKind::NotFound => Problem::not_found(),
        ProblemKind::MethodNotAllowed => Problem::method_not_allowed(),
        ProblemKind::BodyTimeout => body::too_slow(BODY_TIMEOUT),
        ProblemKind::BodyTooLarge => body::too_large(Ingest::MAX_LINE_BYTES),
        ProblemKind::UnsupportedMediaType => {
            let checked = body::media_type(&HeaderMap::new(), &[MediaType::Json]);
            checked.expect_err("the headers have no media type")
        }
        ProblemKind::Misdirected => misdirected(),
        ProblemKind::Invalid => of_visit(br#"{"user_id":"","segment":"sports","seenat":1}"#),
        ProblemKind::TooManySegments => store::Error::TooManySegments(MAX_SEGMENTS).into(),
        ProblemKind::Sampled => {
            let segment = SegmentName::parse("sports").expect("it is a name");
            let depth = Depth::from_number(7).expect("it is a depth");
            MemberListError::Sampled { segment, depths: [depth; 2] }.into()
        }
        ProblemKind::SomeRejected => problems::some_rejected(false),
        ProblemKind::TooManyRejected => problems::too_many_rejected(),
        ProblemKind::TooManyOverlaps => TooMany { reads: CostlyReads::Overlaps, max: MAX_OVERLAPS }.into(),
        ProblemKind::TooManyMemberLists => TooMany { reads: CostlyReads::Members, max: MAX_MEMBER_LISTS }.into(),
        ProblemKind::TooManyLists => TooMany { reads: CostlyReads::Lists, max: MAX_LISTS }.into(),
        ProblemKind::Internal => Problem::of_panic(&"an example"),
        ProblemKind::Unavailable => store::Error::from(redis::Error::Lost("an example".to_owned())).into(),
        ProblemKind::Overloaded => store::Error::Overloaded(MAX_WAITING).into(),
        ProblemKind::RequestTimeout => endpoint::timed_out(REQUEST_TIMEOUT),
        ProblemKind::Stopping => Problem::stopping(),
    }
}

/// Returns a problem of this kind for an aborted batch.
pub fn of_batch(kind: ProblemKind) -> Problem {
    let (problem, accepted) = match kind {
        ProblemKind::BodyTooLarge => return array::too_many(1_001),
        ProblemKind::Malformed => {
            let cut_off = axum::Error::new(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of file"));
            (body::unreadable(&cut_off), 17)
        }
        ProblemKind::Unauthorized => (AuthError::NotAccepted(TokenError::Expired).into(), 17),
        ProblemKind::BodyTimeout => (problems::too_quiet(BODY_TIMEOUT), 17),
        ProblemKind::Invalid => (problems::all_rejected(""), 0),
        ProblemKind::Overloaded => (problems::not_written(store::Error::Overloaded(8)), 17),
        ProblemKind::Stopping => (problems::aborted_by_shutdown(), 17),
        kind => (of_request(kind), 17),
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

fn of_visit(json: &[u8]) -> Problem {
    visit_json::parse(json, Timestamp::from_millis(0)).expect_err("the visit is invalid").into()
}
