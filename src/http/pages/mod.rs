//! The pages for people who look at the numbers: HTML made here, by maud. They work without JavaScript, and ask no other host for
//! anything.
//!
//! `list.rs`, `segment.rs` (with `histogram.rs` and `history.rs`) and `overlap.rs` have a page each, `handlers.rs` what is asked for them,
//! `error.rs` what is shown instead when something is wrong, `files.rs` what all of them load. `layout.rs` has what surrounds each page, `chart.rs` the charts, `axis.rs` their ticks, `format.rs` numbers and times as
//! people read them, `names.rs` names, `links.rs` where links lead, `curl.rs` the calls behind a page. `auth.rs` says who may look.

mod auth;
mod axis;
mod chart;
mod curl;
pub(super) mod error;
mod files;
mod format;
mod handlers;
mod histogram;
mod history;
mod layout;
mod links;
mod list;
mod names;
mod overlap;
mod segment;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use maud::Markup;

pub use self::files::NAMES;
pub(super) use self::files::{__path_file, file};
pub(super) use self::handlers::{
    __path_of_list, __path_of_overlap, __path_of_segment, of_list, of_overlap, of_segment,
};
pub(super) use self::links::BasePath;

/// Lets a page load its files, send its forms, and be refreshed, all of it from this service, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// What HTML is sent as.
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// A 200 with a page. It is true of one moment only, so it may not be cached.
fn shown(page: Markup) -> Response {
    let headers = [(CONTENT_TYPE, HTML), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (HEADERS, headers, page.into_string()).into_response()
}

/// Where the page is that a request asks for, if it asks for one: its errors are pages, too.
pub(super) fn asked_for(method: &Method, path: &str) -> Option<BasePath> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    match path {
        "/" => Some(BasePath::Root),
        path => path.strip_prefix("/pages/").filter(|rest| !rest.contains('/')).map(|_| BasePath::Folder),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", Some(BasePath::Root))]
    #[case("/pages/segment", Some(BasePath::Folder))]
    #[case("/pages/nothing", Some(BasePath::Folder))]
    #[case("/pages/a/b", None)]
    #[case("/pages", None)]
    #[case("/segments/sports/count", None)]
    #[case("/docs", None)]
    fn errors_are_pages_where_pages_are(#[case] path: &str, #[case] place: Option<BasePath>) {
        assert_eq!(asked_for(&Method::GET, path), place);
        assert_eq!(asked_for(&Method::HEAD, path), place);
        assert_eq!(asked_for(&Method::POST, path), None);
    }
}
