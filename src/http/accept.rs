//! What a caller accepts, with quality values (RFC 9110, section 12.4.2).

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName};

/// Returns the elements of the header `name` in lower case, without their parameters, and the quality of each. An
/// invalid quality is 0.
pub fn preferences(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (String, f32)> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let element = parts.next().unwrap_or_default().to_ascii_lowercase();
        (element, parts.find_map(quality).unwrap_or(1.0))
    })
}

/// Returns whether a browser follows a link or an address: all browsers then accept XHTML by name. Their requests for
/// images and by scripts don't, nor do HTTP clients of programming languages, some of which accept HTML.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    preferences(headers, ACCEPT).any(|(media_type, quality)| media_type == "application/xhtml+xml" && quality > 0.0)
}

/// Returns the quality if `parameter` is one.
fn quality(parameter: &str) -> Option<f32> {
    let value = parameter.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?;
    Some(value.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::link("text/html,application/xhtml+xml,*/*;q=0.8", true)]
    #[case::image("image/avif,image/webp,*/*;q=0.8", false)]
    #[case::script("*/*", false)]
    #[case::java("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", false)]
    fn only_links_accept_xhtml(#[case] accept: &'static str, #[case] expected: bool) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(is_navigation(&headers), expected);
    }
}
