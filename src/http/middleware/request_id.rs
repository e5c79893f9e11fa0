//! The request id, which correlates a response with the log.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Header of the request id, in requests and responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the request's own id if it is usable, or a new one.
pub fn of(headers: &HeaderMap) -> HeaderValue {
    headers.get(REQUEST_ID).filter(|id| is_usable(id)).cloned().unwrap_or_else(new)
}

/// Returns the id of a request whose headers have it: [`answer`](super::answer::answer) adds it for handlers that log.
pub fn added(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// Returns whether a caller's id can be copied into a header, a log line and a problem unchanged.
fn is_usable(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).expect("a UUID is ASCII")
}
