//! What a page says when something is wrong: the same as a problem document, in HTML. There are no figures on it.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use maud::{PreEscaped, html};

use super::layout::{self, Page, Refresh};
use super::links::BasePath;
use super::names::visible;
use super::{HEADERS, HTML};
use crate::http::problem::{Document, ProblemKind};

/// The page that stands for `problem`, of this `kind`, at `place`, with what belongs `beneath` it: a form, say, that was filled in wrongly. What
/// its headers must be goes into `headers`.
pub fn body(
    kind: ProblemKind,
    problem: &Document<'_>,
    beneath: Option<&str>,
    place: BasePath,
    headers: &mut HeaderMap,
) -> Body {
    headers.extend(HEADERS);
    headers.insert(CONTENT_TYPE, HTML);
    let passes = problem.status == 503 || kind == ProblemKind::TooManyLists;
    let refresh = if passes && beneath.is_none() { Refresh::Often } else { Refresh::Never };
    let title = title(kind).unwrap_or(problem.title);
    let main = html! {
        div .trouble #trouble {
            h1 { (title) }
            // It repeats names of parameters.
            p { (visible(detail(kind).unwrap_or(problem.detail))) }
            @if let Some(advice) = advice(kind) { p { (advice) } }
            @if refresh == Refresh::Often { p { "With JavaScript this page asks again every " (layout::REFRESH_SECONDS) " seconds, and shows the numbers when there are some." } }
            p .muted { "Status " (problem.status) ", request " code { (problem.request_id) } }
        }
        @if let Some(beneath) = beneath { (PreEscaped(beneath)) }
        @else { p .nothing { a href=(place.root()) { "All segments" } } }
    };
    Body::from(layout::page(place, Page::Trouble, title, refresh, &main).into_string())
}

/// A heading for people who look at a page and send no requests, as far as they know.
const fn title(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => Some("Redis can’t answer, so there are no numbers"),
        ProblemKind::Unauthorized => Some("Sign in to see the numbers"),
        ProblemKind::InsufficientScope => Some("This token may not see the numbers"),
        ProblemKind::NotFound => Some("There is no such page"),
        ProblemKind::Overloaded | ProblemKind::TooManyLists => Some("The service has too much to do"),
        ProblemKind::Invalid => Some("This can’t be shown"),
        _ => None,
    }
}

/// What they are told instead of what is for senders of requests.
const fn detail(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => {
            Some("Redis didn’t answer, or answered with an error, and nothing is guessed. The service’s log says why.")
        }
        ProblemKind::NotFound => Some("The address is not one of this service’s pages. Links lead to all of them."),
        _ => None,
    }
}

/// What those people can do.
const fn advice(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unauthorized => Some(
            "Load the page again; when the browser asks, any user name will do, and the password is an API key or a token.",
        ),
        ProblemKind::InsufficientScope => Some(
            "It needs the scope segments:read. A browser keeps a password until it is closed; a private window asks for another.",
        ),
        _ => None,
    }
}
