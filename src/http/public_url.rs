//! The URL of the service as callers reach it, for the commands on pages.

use std::fmt;

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri};

/// URL of the service for callers, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Parses a URL such as `https://example.com/segments`.
    ///
    /// # Errors
    ///
    /// A predicate such as "must be a URL".
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = || {
            let uri: Uri = text.parse().ok()?;
            let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
            let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
            let prefix = if uri.path() == "/" { "" } else { path_prefix(uri.path())? };
            let is_plain = uri.query().is_none() && !text.contains('#');
            is_plain.then(|| Self(format!("{scheme}://{authority}{prefix}")))
        };
        parsed().ok_or_else(|| {
            "must be a URL such as https://example.com/segments, without a password, a query or a fragment".to_owned()
        })
    }

    /// Returns the URL that a request names: its `Host`, and the scheme and the path prefix of a proxy.
    pub fn of_request(headers: &HeaderMap, is_tls: bool) -> Self {
        Self(format!("{}://{}{}", scheme(headers, is_tls), host(headers), prefix(headers)))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns `https` if the listener, or a proxy in front of it, terminates TLS.
pub(super) fn scheme(headers: &HeaderMap, is_tls: bool) -> &'static str {
    let forwarded = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    if is_tls || forwarded { "https" } else { "http" }
}

fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.filter(|host| !host.is_empty()).unwrap_or("localhost:8080")
}

/// Returns the prefix that a proxy removed from the path. One that is not a path is ignored.
fn prefix(headers: &HeaderMap) -> &str {
    let mut given = headers.get_all("x-forwarded-prefix").iter();
    let prefix = given.next().and_then(|prefix| prefix.to_str().ok()).and_then(path_prefix);
    prefix.filter(|_| given.next().is_none()).unwrap_or_default()
}

/// Returns `path` without a slash at its end, if it is an absolute path of unreserved characters without empty, `.` and
/// `..` segments.
fn path_prefix(path: &str) -> Option<&str> {
    const MAX_BYTES: usize = 200;
    let prefix = path.strip_suffix('/').unwrap_or(path);
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_unreserved);
    let is_path = prefix.len() <= MAX_BYTES && prefix.strip_prefix('/')?.split('/').all(is_segment);
    is_path.then_some(prefix)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::host("https://example.com", Some("https://example.com"))]
    #[case::slash("https://example.com/", Some("https://example.com"))]
    #[case::port_and_path("http://example.com:81/team/seg/", Some("http://example.com:81/team/seg"))]
    #[case::password("https://me:secret@example.com", None)]
    #[case::query("https://example.com/?a=b", None)]
    #[case::fragment("https://example.com/#a", None)]
    #[case::quote("https://example.com/a'b", None)]
    #[case::dots("https://example.com/../a", None)]
    #[case::scheme("ftp://example.com", None)]
    #[case::no_scheme("example.com", None)]
    fn parse_takes_scheme_host_and_path(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(PublicUrl::parse(text).ok().map(|url| url.to_string()).as_deref(), expected);
    }

    #[rstest]
    #[case::none(&[], "http://localhost:8080")]
    #[case::host(&[("host", "a.example")], "http://a.example")]
    #[case::proxy(&[("host", "a.example"), ("x-forwarded-proto", "https")], "https://a.example")]
    #[case::prefix(&[("x-forwarded-prefix", "/team/seg")], "http://localhost:8080/team/seg")]
    #[case::slash_at_the_end(&[("x-forwarded-prefix", "/team/")], "http://localhost:8080/team")]
    #[case::root(&[("x-forwarded-prefix", "/")], "http://localhost:8080")]
    #[case::other_host(&[("x-forwarded-prefix", "//evil.example")], "http://localhost:8080")]
    #[case::url(&[("x-forwarded-prefix", "https://evil.example")], "http://localhost:8080")]
    #[case::shell(&[("x-forwarded-prefix", "/a'; rm -r ~")], "http://localhost:8080")]
    #[case::userinfo(&[("x-forwarded-prefix", "@evil.example/")], "http://localhost:8080")]
    #[case::dots(&[("x-forwarded-prefix", "/a/../b")], "http://localhost:8080")]
    #[case::twice(&[("x-forwarded-prefix", "/a"), ("x-forwarded-prefix", "/b")], "http://localhost:8080")]
    fn of_request_honors_the_proxy(#[case] given: &[(&'static str, &'static str)], #[case] expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert_eq!(PublicUrl::of_request(&headers, false).to_string(), expected);
        assert!(PublicUrl::of_request(&headers, true).to_string().starts_with("https://"));
    }
}
