//! JSON responses.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Returns 200 with `value` as JSON. Caching is disabled because every answer is valid for one moment only.
pub fn json(value: &impl Serialize) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from(json_line(value))).into_response()
}

/// Serializes `value` and appends a line feed, so that a shell prompt starts on its own line.
pub fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("strings and numbers serialize");
    line.push(b'\n');
    line
}
