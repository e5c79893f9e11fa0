//! Responses with a page.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use maud::Markup;

/// Restricts a page to this service: it may load its files, send its forms and refresh itself, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of every page and its files.
pub const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Content type of a page.
pub const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Returns 200 with `page`. Caching is disabled because a page is valid for one moment only.
pub fn html(page: Markup) -> Response {
    let headers = [(CONTENT_TYPE, HTML), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (HEADERS, headers, page.into_string()).into_response()
}
