//! CORS: pages of which origins may read answers ([the standard](https://fetch.spec.whatwg.org/#http-cors-protocol)). Off
//! unless it is configured, and then nothing of it is in a request's way.

use std::net::Ipv6Addr;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request_id::REQUEST_ID;
use crate::http::extract::prefer::{PREFER, PREFERENCE_APPLIED};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The origins whose pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All there are.
    Any,
    /// These.
    Listed(Vec<HeaderValue>),
}

impl Origins {
    /// Reads `*`, or origins such as `https://app.example` with commas between them.
    ///
    /// # Errors
    ///
    /// A sentence without its subject when it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        if text.contains('*') {
            return Err(
                "has a wildcard in a host, and no browser sends one: name each origin, or * alone for all".to_owned()
            );
        }
        let origins = text.split(',').map(|origin| parse_origin(origin.trim()));
        origins.collect::<Option<_>>().map(Self::Listed).ok_or_else(|| {
            "must be * or origins with commas between them, such as https://app.example or http://localhost:3000"
                .to_owned()
        })
    }
}

impl std::fmt::Display for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Listed(origins) => {
                let texts: Vec<_> = origins.iter().filter_map(|origin| origin.to_str().ok()).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

/// An origin as browsers write it: scheme, host in small letters, and the port as a number unless it is the scheme's own.
fn parse_origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let is_usual = matches!((scheme, port.as_str()), ("http", ":80") | ("https", ":443"));
    let is_name = host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok_and(|canonical| canonical.to_string() == address));
    let is_origin = text == format!("{scheme}://{host}{port}") && (is_name || is_address) && !is_usual;
    is_origin.then(|| HeaderValue::try_from(text).ok())?
}

/// What lets pages of `origins` call the API. Tokens are in a header that pages set themselves, so no credentials of the
/// browser's own are asked for.
pub fn layer(origins: &Origins) -> CorsLayer {
    /// Browsers ask again after this long. Some keep an answer for no longer than ten minutes.
    const REMEMBERED: Duration = Duration::from_secs(600);
    let allowed = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, CONTENT_ENCODING, PREFER, REQUEST_ID, TRACEPARENT])
        .expose_headers([PREFERENCE_APPLIED, REQUEST_ID, RETRY_AFTER, WWW_AUTHENTICATE, TRACEPARENT])
        .max_age(REMEMBERED)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*")]
    #[case("https://app.example")]
    #[case("https://app.example,http://localhost:3000")]
    #[case("http://[2001:db8::1]:3000,http://127.0.0.1")]
    fn origins_are_read(#[case] text: &str) {
        assert_eq!(Origins::parse(text).unwrap().to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("app.example")]
    #[case("https://app.example/")]
    #[case("https://app.example/page")]
    #[case("https://App.example")]
    #[case("https://app.example:443")]
    #[case("https://*.example/")]
    #[case("https://*.example.com")]
    #[case("https://a*.example.com:8443")]
    #[case("https://a.example,https://*")]
    #[case("https://a.example:08443")]
    #[case("http://[2001:DB8::1]")]
    #[case("http://[0:0:0:0:0:0:0:1]")]
    #[case("https://user@a.example")]
    #[case("https://a.example,")]
    #[case("*,https://a.example")]
    #[case("null")]
    fn what_no_browser_would_send_is_refused(#[case] text: &str) {
        assert!(Origins::parse(text).is_err());
    }
}
