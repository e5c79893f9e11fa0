//! Errors as RFC 9457 problem documents.
//!
//! A handler returns a [`Problem`]. Its response carries the problem as an extension and has no body. The
//! [`answer`](super::middleware::answer) middleware takes the problem out and renders it as JSON or as a page.

mod document;
mod kind;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

pub use self::document::{ProblemDocument, TYPE_PREFIX};
pub use self::kind::{KindDescription, ProblemKind};
use crate::domain::FieldError;
use crate::ingest::Report;

/// Error response that has not been rendered yet.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: ProblemKind,
    /// What is wrong and what to do, for the client. The log has it, too.
    detail: String,
    errors: Vec<FieldError>,
    /// The path that was probably meant.
    suggestion: Option<Box<str>>,
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
            suggestion: None,
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
        self.suggestion = Some(path.into());
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

    /// Returns the path that was probably meant.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
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
        ProblemDocument::new(self.kind, &self.detail, request_id, &self.errors, self.report.as_deref())
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
