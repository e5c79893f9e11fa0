//! What surrounds the router: the request id, and answers for errors.
//!
//! None of it is a layer of the router: those cost each request a boxed future and copies of what they might need, which
//! was a tenth of the service's time for a small request.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use tower_service::Service as _;

use crate::http::pages;
use crate::http::problem::Problem;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Has `router` answer `request`, and makes a problem document of what is an error, be it ours or the framework's, or a page where a
/// page was asked for. The request's id comes back with the answer; a request without one gets one.
///
/// A body is what it is said to be: no browser may guess that JSON with a name in it is a page.
pub async fn answer(mut router: Router, mut request: Request) -> Response {
    let request_id = request.headers().get(REQUEST_ID).filter(|id| is_usable(id)).cloned();
    let request_id = request_id.unwrap_or_else(new_request_id);
    let method = request.method().clone();
    if method == Method::DELETE {
        // The handler names it in the log.
        request.headers_mut().insert(REQUEST_ID, request_id.clone());
    }
    let place = pages::asked_for(&method, request.uri().path());

    let mut response = match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if let Some(problem) = Problem::taken_from(&mut response) {
        response = problem.rendered(request_id.to_str().unwrap_or_default(), &method, place, &response);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    if headers.contains_key(CONTENT_TYPE) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// A caller's id is passed on when it can stand in a header, a log and a problem as it is.
fn is_usable(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_request_id() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).expect("a UUID is ASCII")
}
