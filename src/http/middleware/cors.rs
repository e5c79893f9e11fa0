//! [CORS](https://fetch.spec.whatwg.org/#http-cors-protocol): allows the pages of other origins to call the API. The
//! layer exists only if it is configured.

use std::net::Ipv6Addr;
use std::time::Duration;

use axum::http::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, LINK, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request_id::REQUEST_ID;
use crate::http::extract::prefer::{PREFER, PREFERENCE_APPLIED};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Origins whose pages may call the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All origins.
    Any,
    /// Only these.
    Listed(Vec<HeaderValue>),
}

impl Origins {
    /// Parses `*`, or a comma-separated list of origins such as `https://app.example`.
    ///
    /// # Errors
    ///
    /// A predicate such as "must be * or origins".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        if text.contains('*') {
            return Err("has a wildcard in a host, and no browser sends one: list each origin, or use * alone for all"
                .to_owned());
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

/// Parses an origin as browsers write it: scheme, host in lower case, and the port unless it is the default.
fn parse_origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let is_default_port = matches!((scheme, port.as_str()), ("http", ":80") | ("https", ":443"));
    let is_name = host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok_and(|canonical| canonical.to_string() == address));
    let is_origin = text == format!("{scheme}://{host}{port}") && (is_name || is_address) && !is_default_port;
    is_origin.then(|| HeaderValue::try_from(text).ok())?
}

/// Returns the layer that allows pages of `origins` to call the API. Pages send the token in a header, so the browser's
/// own credentials are not allowed.
pub fn layer(origins: &Origins) -> CorsLayer {
    /// Some browsers cache a preflight response for no longer than this.
    const MAX_AGE: Duration = Duration::from_secs(600);
    let allowed = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, CONTENT_ENCODING, PREFER, REQUEST_ID, TRACEPARENT])
        .expose_headers([
            CONTENT_DISPOSITION,
            LINK,
            PREFERENCE_APPLIED,
            REQUEST_ID,
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            TRACEPARENT,
        ])
        .max_age(MAX_AGE)
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
    fn parse_accepts_origins(#[case] text: &str) {
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
    fn parse_refuses_what_no_browser_sends(#[case] text: &str) {
        assert!(Origins::parse(text).is_err());
    }
}
