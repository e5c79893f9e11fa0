//! Compression of answers with gzip.

use axum::extract::Request;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use crate::http::accept::preferences;

/// Returns the layer of a route with long answers.
///
/// A layer costs a request a boxed future, so routes with small answers have none.
pub fn layer() -> CompressionLayer<SizeAbove> {
    /// Less fits into a packet or two.
    const MIN_BYTES: u64 = 1_000;
    // Compression runs between the requests of the same thread. The fastest level takes a quarter of the usual one's time.
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(MIN_BYTES))
}

/// Leaves only `gzip` in `Accept-Encoding`, or removes the header if the answer must not be compressed.
///
/// Without it, the layer turns an answer into 406 if the caller refuses an uncompressed one, whatever else it accepts.
pub async fn choose_encoding(mut request: Request) -> Request {
    let headers = request.headers_mut();
    if accepts_gzip(headers) && !is_cross_site(headers) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        headers.remove(ACCEPT_ENCODING);
    }
    request
}

/// Returns whether `Accept-Encoding` allows gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any) = (None, false);
    for (coding, quality) in preferences(headers, ACCEPT_ENCODING) {
        let is_accepted = quality > 0.0;
        match coding.as_str() {
            "gzip" | "x-gzip" => gzip = Some(gzip.unwrap_or(false) || is_accepted),
            "*" => any = is_accepted,
            _ => {}
        }
    }
    gzip.unwrap_or(any)
}

/// Returns whether a page of another site caused the request. It chooses a part of the answer by its parameters, and
/// could learn the rest from the compressed length (BREACH).
fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get(HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(&[], false)]
    #[case::gzip(&["gzip"], true)]
    #[case::old_name(&["X-GZIP"], true)]
    #[case::among_others(&["br, gzip;q=0.5"], true)]
    #[case::in_another_line(&["br", "gzip"], true)]
    #[case::identity_only(&["identity"], false)]
    #[case::no_identity(&["identity;q=0"], false)]
    #[case::any(&["*"], true)]
    #[case::nothing_else(&["br, *;q=0"], false)]
    #[case::any_but_gzip(&["gzip; q=0.000, *"], false)]
    #[case::wrong_quality(&["gzip;q=high"], false)]
    fn accepts_gzip_by_its_name_or_by_a_star(#[case] values: &[&'static str], #[case] expected: bool) {
        let headers = values.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
        assert_eq!(accepts_gzip(&headers.collect()), expected);
    }
}
