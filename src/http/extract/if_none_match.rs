//! Revalidation of content that changes with the version only.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use xxhash_rust::xxh64::xxh64;

/// The entity tags of the content that the caller has, from `If-None-Match`.
pub struct IfNoneMatch(HeaderMap);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let tags = parts.headers.get_all(IF_NONE_MATCH).iter().map(|tags| (IF_NONE_MATCH, tags.clone()));
        Ok(Self(tags.collect()))
    }
}

impl IfNoneMatch {
    /// Returns 200 with `content`, or 304 if the caller has it. Caches may store it, but must revalidate it.
    pub fn answer(&self, media_type: &str, content: impl Into<Bytes>) -> Response {
        let content = content.into();
        // Weak, because the same content may be sent compressed or not.
        let tag = format!("W/\"{:016x}\"", xxh64(&content, 0));
        let caching = [
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (ETAG, HeaderValue::try_from(&tag).expect("hexadecimal digits are valid in a header")),
        ];
        if self.has(&tag) {
            // As the 200 has, which may be compressed (RFC 9110, section 15.4.5).
            let vary = [(VARY, HeaderValue::from_static("accept-encoding"))];
            return (StatusCode::NOT_MODIFIED, caching, vary).into_response();
        }
        (caching, [(CONTENT_TYPE, media_type)], Body::from(content)).into_response()
    }

    /// Returns whether `tag` is one of the caller's, by the weak comparison of RFC 9110.
    fn has(&self, tag: &str) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let given = self.0.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        given.flat_map(|tags| tags.split(',')).any(|given| given.trim() == "*" || opaque(given) == opaque(tag))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(&[], 200)]
    #[case::other(&["W/\"0000000000000000\""], 200)]
    #[case::same(&["W/\"ef46db3751d8e999\""], 304)]
    #[case::strong(&["\"ef46db3751d8e999\""], 304)]
    #[case::in_a_list(&["\"a\", W/\"ef46db3751d8e999\""], 304)]
    #[case::in_another_line(&["\"a\"", "W/\"ef46db3751d8e999\""], 304)]
    #[case::any(&["*"], 304)]
    fn content_that_the_caller_has_is_not_sent(#[case] tags: &[&'static str], #[case] status: u16) {
        let headers = tags.iter().map(|tag| (IF_NONE_MATCH, HeaderValue::from_static(tag)));
        let response = IfNoneMatch(headers.collect()).answer("text/plain", "");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[ETAG], "W/\"ef46db3751d8e999\"");
    }
}
