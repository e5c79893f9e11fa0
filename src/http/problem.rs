//! Errors as RFC 9457 problem documents.
//!
//! A handler returns a [`Problem`]. Its response carries the problem as an extension and has no body. The
//! [`answer`](super::middleware::answer) middleware takes the problem out and renders it as JSON or as a page.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::batch_report::BatchReport;
use crate::domain::FieldError;
use crate::ingest::Report;

/// Prefix of every problem type.
pub const TYPE_PREFIX: &str = "urn:segment-estimator:problem:";

/// Kind of a problem, which determines its status, type and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not JSON, or the request violates HTTP.
    Malformed,
    /// The request has no token, or the token is not accepted.
    Unauthorized,
    /// The token lacks the required scope.
    InsufficientScope,
    /// No route has the path.
    NotFound,
    /// The route does not have the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body exceeds its size limit.
    BodyTooLarge,
    /// The media type or the content encoding is not supported.
    UnsupportedMediaType,
    /// The `Host` header names a host that is not allowed.
    Misdirected,
    /// The request is well-formed, but its content is invalid.
    Invalid,
    /// The visit would create a segment beyond the segment limit.
    TooManySegments,
    /// A batch was aborted because too many of its lines were rejected.
    TooManyRejected,
    /// All permits for overlaps are taken.
    TooManyOverlaps,
    /// All permits for lists and requests for users are taken.
    TooManyLists,
    /// A handler panicked, or the framework failed.
    Internal,
    /// Redis did not answer, or answered with an error.
    Unavailable,
    /// Too many requests are in flight or wait for Redis.
    Overloaded,
    /// The request exceeded its time limit.
    RequestTimeout,
    /// The service is shutting down.
    Stopping,
}

/// What all problems of a kind have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindDescription {
    pub status: StatusCode,
    /// The type without its prefix.
    pub slug: &'static str,
    pub title: &'static str,
}

impl ProblemKind {
    /// Returns what all problems of this kind have in common.
    #[must_use]
    pub const fn describe(self) -> KindDescription {
        let (status, slug, title) = match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed-request", "The request can't be read"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Missing or invalid token"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "insufficient-scope", "The token doesn't allow this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body didn't arrive in time"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported content type")
            }
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "The host is not allowed"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid"),
            Self::TooManySegments => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-segments", "The segment limit is reached")
            }
            Self::TooManyRejected => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-many-rejected", "Too many lines were rejected")
            }
            Self::TooManyOverlaps => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-overlaps", "Too many overlaps are in progress")
            }
            Self::TooManyLists => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-lists",
                "Too many lists or requests for users are in progress",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error", "The service failed"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Redis can't answer now"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests are in progress"),
            Self::RequestTimeout => (StatusCode::SERVICE_UNAVAILABLE, "request-timeout", "The request took too long"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
        };
        KindDescription { status, slug, title }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.describe().status
    }

    const fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::InsufficientScope,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::BodyTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::MISDIRECTED_REQUEST => Self::Misdirected,
            StatusCode::UNPROCESSABLE_ENTITY => Self::Invalid,
            status if status.as_u16() < 500 => Self::Malformed,
            _ => Self::Internal,
        }
    }
}

/// Error response that has not been rendered yet.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: ProblemKind,
    /// What is wrong and what to do, for the client. The log has it, too.
    detail: String,
    errors: Vec<FieldError>,
    route: Option<&'static str>,
    challenge: Option<Box<HeaderValue>>,
    report: Option<Box<Report>>,
    /// The error behind the problem, for the log alone.
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// Result of a handler.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// Returns a problem of `kind`. `detail` tells the client what is wrong and what to do.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            route: None,
            challenge: None,
            report: None,
            cause: None,
        }
    }

    /// Returns the problem of a request whose fields have these errors.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = FieldError::list(&errors);
        Self { errors, ..Self::new(ProblemKind::Invalid, detail) }
    }

    /// Returns the problem of a request with one invalid field. `why` is a predicate such as "must not be empty".
    pub fn invalid_field(field: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, why)])
    }

    /// Returns the problem of a request whose path no route has.
    pub fn not_found() -> Self {
        Self::new(
            ProblemKind::NotFound,
            "No route has this path. A path has no trailing slash; write a slash in a segment's name as %2F.",
        )
    }

    /// Adds `path`, which a route has, as the one that was probably meant.
    #[must_use]
    pub fn suggesting(mut self, path: &str) -> Self {
        self.detail += &format!(" Did you mean {path}?");
        self
    }

    /// Returns the problem of a request whose method the route does not have.
    pub fn method_not_allowed() -> Self {
        Self::new(ProblemKind::MethodNotAllowed, "The Allow header lists the methods of this path.")
    }

    /// Returns the problem of a request that arrives during the shutdown.
    pub fn stopping() -> Self {
        Self::new(ProblemKind::Stopping, "The service is stopping and accepts no new requests.")
    }

    /// Returns the problem of a handler that panicked with `panic`.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let cause = std::io::Error::other(format!("panic: {message}"));
        Self::new(ProblemKind::Internal, "The service failed. Its log has the reason under this request id.")
            .with_cause(cause)
    }

    /// Takes the problem out of `response`. Makes one if the framework answered with an error of its own.
    pub fn take_from(response: &mut Response) -> Option<Self> {
        let status = response.status();
        response.extensions_mut().remove().or_else(|| {
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then(|| Self::new(ProblemKind::of_status(status), "The request could not be served."))
        })
    }

    /// Replaces the detail.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// Adds field errors without changing the detail.
    #[must_use]
    pub fn with_errors(self, errors: Vec<FieldError>) -> Self {
        Self { errors, ..self }
    }

    /// Adds the report of a batch, which becomes part of the document.
    #[must_use]
    pub fn with_report(self, report: Report) -> Self {
        Self { report: Some(Box::new(report)), ..self }
    }

    /// Adds a `WWW-Authenticate` challenge (RFC 9110, section 11.6.1).
    #[must_use]
    pub fn with_challenge(self, challenge: HeaderValue) -> Self {
        Self { challenge: Some(Box::new(challenge)), ..self }
    }

    /// Adds the cause, which is logged and not sent to the client.
    #[must_use]
    pub fn with_cause(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }

    /// Sets the route of the request, for the log.
    pub const fn set_route(&mut self, route: &'static str) {
        self.route = Some(route);
    }

    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Returns the HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// Returns the type without its prefix.
    pub const fn type_slug(&self) -> &'static str {
        self.kind.describe().slug
    }

    /// Returns what is wrong and what to do, for the client.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub const fn route(&self) -> Option<&'static str> {
        self.route
    }

    pub fn challenge(&self) -> Option<&HeaderValue> {
        self.challenge.as_deref()
    }

    /// Returns the error behind the problem, for the log alone.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// Returns the document for the request with this id.
    pub fn document<'a>(&'a self, request_id: &'a str) -> ProblemDocument<'a> {
        let KindDescription { status, slug, title } = self.kind.describe();
        let errors = self.errors.iter();
        ProblemDocument {
            r#type: format!("{TYPE_PREFIX}{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: errors.map(|error| FieldErrorDocument { field: &error.field, detail: &error.detail }).collect(),
            report: self.report.as_deref().map(BatchReport::of_incomplete),
        }
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid(vec![error])
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error: the members of RFC 9457, section 3, and extensions.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// The kind of problem, for programs.
    r#type: String,
    /// The kind of problem, for people.
    pub title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request, and what to do.
    pub detail: &'a str,
    /// The id of the request, as in the header `x-request-id` and in the service's log.
    #[schema(min_length = 1, max_length = 128)]
    pub request_id: &'a str,
    /// The errors of each field or parameter, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    errors: Vec<FieldErrorDocument<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    report: Option<BatchReport<'a>>,
}

/// An error of a field.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
struct FieldErrorDocument<'a> {
    /// The name of the field or parameter.
    field: &'a str,
    /// What is wrong, as a predicate without its subject.
    detail: &'a str,
}
