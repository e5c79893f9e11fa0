//! Errors as RFC 9457 problem documents, and the one place where they are rendered and logged.
//!
//! A handler returns a [`Problem`]. Its response is empty but for the problem, which [`answer`](super::middleware::answer) takes out of
//! it again and has written as `application/problem+json`.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::api::batch::ReportDocument;
use super::docs::openapi::schemas;
use super::json_line;
use super::pages::BasePath;
use super::pages::error;
use crate::domain::FieldError;
use crate::estimator::concurrency_limit::{CostlyReads, TooMany};
use crate::ingest::Report;
use crate::store;

/// What every problem's type begins with.
pub(super) const TYPE_PREFIX: &str = "urn:segment-estimator:problem:";
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// When to come again, in seconds. Redis is looked for at every request, so there is no reason to wait long.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The kinds of problem: each has its status, title and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not JSON, or the request is otherwise not what HTTP allows.
    Malformed,
    /// There is no token, or none that is accepted.
    Unauthorized,
    /// The token doesn't allow this.
    InsufficientScope,
    /// No such route.
    NotFound,
    /// The route has other methods.
    MethodNotAllowed,
    /// The body didn't arrive in time.
    BodyTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body is declared to be something else than JSON.
    UnsupportedMediaType,
    /// The request is for a host that the service doesn't answer for.
    Misdirected,
    /// The request can be read, but what it says is not valid.
    Invalid,
    /// The visit is to a new segment, and there are as many as there may be.
    TooManySegments,
    /// So many lines of a batch are rejected that the rest was not read.
    TooManyRejected,
    /// As many overlaps as are answered at the same time are under way.
    TooManyOverlaps,
    /// As many lists and requests for users as are answered at the same time are under way.
    TooManyLists,
    /// Our fault.
    Internal,
    /// Redis can't do it now.
    Unavailable,
    /// More is asked than can be done.
    Overloaded,
    /// The request took longer than a request may.
    RequestTimeout,
    /// The service is stopping.
    Stopping,
}

impl ProblemKind {
    /// The HTTP status, the end of the type, and the title.
    pub(super) const fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed-request", "The request can't be read"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "The request has no accepted token"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "insufficient-scope", "The token doesn't allow this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing at this path"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This path has other methods")
            }
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body didn't arrive in time"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is of another type")
            }
            Self::Misdirected => {
                (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "The request is for another host")
            }
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid"),
            Self::TooManySegments => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-segments", "There are as many segments as there may be")
            }
            Self::TooManyRejected => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-rejected", "Too many lines are rejected")
            }
            Self::TooManyOverlaps => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-overlaps", "Too many overlaps are asked for already")
            }
            Self::TooManyLists => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-lists", "Too many lists or users are asked for already")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error", "The service failed"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Redis can't answer now"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests wait already"),
            Self::RequestTimeout => (StatusCode::SERVICE_UNAVAILABLE, "request-timeout", "The request took too long"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.describe().0
    }
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    errors: Vec<FieldError>,
    /// The route that the request was for.
    route: Option<&'static str>,
    /// What the client is told of the token that it needs.
    challenge: Option<Box<HeaderValue>>,
    /// What became of a batch all the same.
    report: Option<Box<Report>>,
    /// What a page shows beneath it, as HTML.
    beneath: Option<Box<str>>,
    /// What caused it: for the log, not for the client.
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// The result of a handler.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem of `kind`, with a sentence or two for the client.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            route: None,
            challenge: None,
            report: None,
            beneath: None,
            cause: None,
        }
    }

    /// A request whose `errors` make it invalid.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = FieldError::list(&errors);
        Self { errors, ..Self::new(ProblemKind::Invalid, detail) }
    }

    /// What its type is called, without what all types have in common.
    pub const fn slug(&self) -> &'static str {
        self.kind.describe().1
    }

    /// Its HTTP status.
    pub const fn status(&self) -> u16 {
        self.kind.describe().0.as_u16()
    }

    /// The service is stopping.
    pub fn stopping() -> Self {
        Self::new(ProblemKind::Stopping, "The service is stopping and takes no new work.")
    }

    /// It is the answer to a request for `route`.
    pub fn met_at(&mut self, route: &'static str) {
        self.route = Some(route);
    }

    /// The problem of a batch of which this became.
    #[must_use]
    pub fn with_report(self, report: Report) -> Self {
        Self { report: Some(Box::new(report)), ..self }
    }

    /// The problem of a client that needs another token, which `challenge` tells it (RFC 9110, section 11.6.1).
    #[must_use]
    pub fn challenging(self, challenge: HeaderValue) -> Self {
        Self { challenge: Some(Box::new(challenge)), ..self }
    }

    /// The same problem, beneath which a page shows this HTML.
    #[must_use]
    pub fn above(self, html: String) -> Self {
        Self { beneath: Some(html.into()), ..self }
    }

    /// The same problem in other words.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
}

impl From<TooMany> for Problem {
    fn from(error: TooMany) -> Self {
        let kind = match error.reads {
            CostlyReads::Overlaps => ProblemKind::TooManyOverlaps,
            CostlyReads::Lists => ProblemKind::TooManyLists,
        };
        let detail = format!(
            "Nothing was done: {error}, and no more are answered at a time. Repeat the request after the seconds in Retry-After."
        );
        Self::new(kind, detail)
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if let store::Error::Overloaded(_) = error {
            let detail = format!("Nothing was done: {error}. Repeat the request after the seconds in Retry-After.");
            return Self::new(ProblemKind::Overloaded, detail).caused_by(error);
        }
        if let store::Error::TooManySegments(max) = error {
            let detail = format!(
                "Nothing was written: there are {max} segments, and this one would be new. Correct the segment, or have the operator \
                 raise max_segments. Segments that nobody is in make room."
            );
            let why = FieldError::new("segment", format!("would be new, and there are {max} segments already"));
            let problem = Self::new(ProblemKind::TooManySegments, detail).caused_by(error);
            return Self { errors: vec![why], ..problem };
        }
        let detail = match error {
            store::Error::NotReplicated { .. } => {
                "It was written, but too few of Redis's replicas have it, so that it may yet be lost. Repeat the request; a \
                 visit without seen_at counts from the repetition."
            }
            store::Error::NoWaitAof => {
                "It was written, but Redis can't tell whether its replicas have it on disk: the operator has asked for more \
                 than Redis can promise."
            }
            store::Error::Refused { ref code, .. } if code == "OOM" => {
                "Redis's memory is full: visits can't be taken until the operator raises its maxmemory (redis_max_memory, if it is the \
                 private Redis), or users expire. Counts are answered. Repeat the request later; a visit without seen_at counts from the repetition."
            }
            _ => {
                "Redis didn't answer, or answered with an error. Nothing is guessed: a count is not known, and a write may \
                 or may not have been done. Repeat the request; a visit without seen_at counts from the repetition."
            }
        };
        Self::new(ProblemKind::Unavailable, detail).caused_by(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error: RFC 9457, section 3, and our extensions.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// The kind of problem, for programs.
    #[schema(schema_with = schemas::problem_type)]
    r#type: String,
    /// The kind of problem, for people.
    pub(super) title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub(super) status: u16,
    /// What is wrong with this request, and what to do.
    pub(super) detail: &'a str,
    /// The same as in the header `x-request-id`; the service's log has it, too.
    #[schema(min_length = 1, max_length = 128)]
    pub(super) request_id: &'a str,
    /// What is wrong, field by field, if it is about fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    errors: Vec<FieldErrorDocument<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    report: Option<ReportDocument<'a>>,
}

/// What is wrong with a field.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
struct FieldErrorDocument<'a> {
    /// The field's or the parameter's name.
    field: &'a str,
    /// What is wrong with it: a sentence without its subject.
    detail: &'a str,
}

impl Problem {
    /// The problem of a panic in a handler.
    pub(super) fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let cause = std::io::Error::other(format!("panic: {message}"));
        Self::new(ProblemKind::Internal, "The service failed. The request id leads to the reason in its log.")
            .caused_by(cause)
    }

    /// The problem that `response` is, taken out of it: ours, or one for an error that the framework gave in another form.
    pub(super) fn taken_from(response: &mut Response) -> Option<Self> {
        let status = response.status();
        response.extensions_mut().remove().or_else(|| {
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then(|| Self::new(kind_of(status), "The request could not be served."))
        })
    }

    /// The document that the request `id` gets.
    pub(super) fn document<'a>(&'a self, id: &'a str) -> Document<'a> {
        let (status, slug, title) = self.kind.describe();
        let errors = self.errors.iter();
        Document {
            r#type: format!("{TYPE_PREFIX}{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            request_id: id,
            errors: errors.map(|error| FieldErrorDocument { field: &error.field, detail: &error.detail }).collect(),
            report: self.report.as_deref().map(ReportDocument::of_problem),
        }
    }

    /// The answer to the request `id`: the document, or the page at `place` that stands for it, with the headers of `response`. A
    /// problem that is ours is logged here, once.
    pub(super) fn rendered(&self, id: &str, method: &Method, place: Option<BasePath>, response: &Response) -> Response {
        let status = self.kind.status();
        let (route, error) = (self.route, self.cause.as_deref().map(tracing::field::display));
        if self.kind == ProblemKind::Internal {
            tracing::error!(request_id = id, %method, route, status = status.as_u16(), error, "{}", self.detail);
        } else {
            // Not ours, or logged already where Redis failed: `store::outage`. The detail repeats names of fields, in which a line
            // feed would begin a line of the log.
            let detail = || self.detail.replace(char::is_control, "\u{fffd}");
            tracing::debug!(request_id = id, %method, route, status = status.as_u16(), error, "{}", detail());
        }

        let mut rendered = status.into_response();
        let headers = rendered.headers_mut();
        // Such as Allow, and what lets the page of another origin read it.
        headers.extend(response.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.remove(CONTENT_LENGTH);
        // RFC 9111, section 4.2.2: 404, 405 and 414 may be kept by caches that nobody tells otherwise.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let document = self.document(id);
        let body = match place {
            Some(place) => error::body(self.kind, &document, self.beneath.as_deref(), place, headers),
            None => {
                headers.insert(CONTENT_TYPE, PROBLEM_JSON);
                Body::from(json_line(&document))
            }
        };
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(challenge) = &self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::clone(challenge));
        }
        *rendered.body_mut() = body;
        rendered
    }
}

fn kind_of(status: StatusCode) -> ProblemKind {
    match status {
        StatusCode::UNAUTHORIZED => ProblemKind::Unauthorized,
        StatusCode::FORBIDDEN => ProblemKind::InsufficientScope,
        StatusCode::NOT_FOUND => ProblemKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => ProblemKind::BodyTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemKind::UnsupportedMediaType,
        StatusCode::MISDIRECTED_REQUEST => ProblemKind::Misdirected,
        StatusCode::UNPROCESSABLE_ENTITY => ProblemKind::Invalid,
        status if status.is_client_error() => ProblemKind::Malformed,
        _ => ProblemKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::Captured;

    #[test]
    fn debug_log_has_one_line_for_a_detail_with_line_feeds() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let forged = "x\n2026-11-28T10:00:00Z  INFO deleted a user\r\u{85}";
        let problem = Problem::invalid(vec![FieldError::new(forged, "is not a field of a visit")]);
        let log = || problem.rendered("id", &Method::POST, None, &Response::default());
        let response = tracing::subscriber::with_default(subscriber.finish(), log);
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let lines = captured.lines();
        assert!(
            lines.len() == 1 && lines[0].contains("INFO deleted a user") && !lines[0].contains('\u{85}'),
            "{lines:?}"
        );
    }
}
