//! Error pages: a problem as HTML, without figures.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use maud::{Markup, PreEscaped, html};

use super::layout::{self, Page, Refresh};
use super::links::BasePath;
use super::names::visible;
use super::response::{HEADERS, HTML};
use crate::http::problem::{Problem, ProblemDocument, ProblemKind};

/// Form below an error message, so that the user can correct the input.
#[derive(Debug, Clone)]
pub struct Form(Box<str>);

/// Problem of a page with a form.
#[derive(Debug)]
pub struct FormProblem {
    problem: Problem,
    form: Option<Form>,
}

impl FormProblem {
    pub fn new(problem: impl Into<Problem>, form: Markup) -> Self {
        Self { problem: problem.into(), form: Some(Form(form.into_string().into())) }
    }
}

impl<E: Into<Problem>> From<E> for FormProblem {
    fn from(error: E) -> Self {
        Self { problem: error.into(), form: None }
    }
}

impl IntoResponse for FormProblem {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(form) = self.form {
            response.extensions_mut().insert(form);
        }
        response
    }
}

/// Renders `problem` as the body of a page in `base`, with `form` below the message. Adds the headers of a page.
pub fn body(
    kind: ProblemKind,
    problem: &ProblemDocument<'_>,
    form: Option<Form>,
    base: BasePath,
    headers: &mut HeaderMap,
) -> Body {
    headers.extend(HEADERS);
    headers.insert(CONTENT_TYPE, HTML);
    let is_temporary = problem.status == 503 || kind == ProblemKind::TooManyLists;
    let refresh = if is_temporary && form.is_none() { Refresh::Periodic } else { Refresh::Never };
    let title = title(kind).unwrap_or(problem.title);
    let main = html! {
        div .error #error {
            h1 { (title) }
            // The detail may contain parameter names from the request.
            p { (visible(detail(kind).unwrap_or(problem.detail))) }
            @if let Some(advice) = advice(kind) { p { (advice) } }
            @if refresh == Refresh::Periodic {
                p #retries hidden { "This page retries automatically." }
            }
            p .muted { "Status " (problem.status) ", request " code { (problem.request_id) } }
        }
        @if let Some(Form(form)) = form { (PreEscaped(form)) }
        @else { p .nothing { a href=(base.root()) { "All segments" } } }
    };
    Body::from(layout::page(base, Page::Error, title, refresh, &main).into_string())
}

/// Returns a heading for readers of pages, who don't see requests.
const fn title(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => Some("Counts are unavailable right now"),
        ProblemKind::Unauthorized => Some("Sign in"),
        ProblemKind::InsufficientScope => Some("This key can’t read segments"),
        ProblemKind::NotFound => Some("Page not found"),
        ProblemKind::Overloaded | ProblemKind::TooManyLists => Some("The service is busy"),
        ProblemKind::Invalid => Some("This link isn’t valid"),
        _ => None,
    }
}

/// Returns an explanation for readers of pages, in place of the one for API clients.
const fn detail(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => Some("The database isn’t responding. The service’s log has the cause."),
        ProblemKind::NotFound => Some("Start from All segments."),
        _ => None,
    }
}

const fn advice(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unauthorized => Some("Reload, enter any user name, and an API key or a token as the password."),
        ProblemKind::InsufficientScope => Some(
            "The pages need the scope segments:read. A browser keeps the password until it is closed; to enter another one, use a \
             private window.",
        ),
        _ => None,
    }
}
