//! Taking in a request's body: its declared type, its size and the time it may take.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::LengthLimitError;

use super::problem::{Problem, ProblemKind, Result};

/// Refuses a body that is not declared as JSON in plain bytes.
pub fn require_json(headers: &HeaderMap) -> Result<()> {
    let unsupported = |detail: &str| Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return unsupported("The request has no Content-Type; it must be application/json.");
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return unsupported("The Content-Type must be application/json.");
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            unsupported("A body with a Content-Encoding is not accepted here; send it uncompressed.")
        }
        _ => Ok(()),
    }
}

/// Reads all of `body`, which must arrive within `time_limit` and be no longer than `max_bytes`.
pub async fn read(body: Body, max_bytes: usize, time_limit: Duration) -> Result<Bytes> {
    match tokio::time::timeout(time_limit, axum::body::to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_about_length(&error) => {
            let detail = format!("The body is longer than {max_bytes} bytes, the most that is accepted here.");
            Err(Problem::new(ProblemKind::BodyTooLarge, detail))
        }
        Ok(Err(error)) => {
            Err(Problem::new(ProblemKind::Malformed, format!("The body could not be read to its end: {error}.")))
        }
        Err(_) => {
            let limit = humantime::format_duration(time_limit);
            Err(Problem::new(ProblemKind::BodyTimeout, format!("The body was not complete after {limit}.")))
        }
    }
}

fn is_about_length(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<LengthLimitError>())
}
