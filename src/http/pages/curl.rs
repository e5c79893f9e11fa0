//! The API requests behind a page, as shell commands.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::request::Parts;

use crate::http::state::AppState;

/// Base URL of the service, as the caller reaches it.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    /// Scheme and host.
    base: String,
    /// Whether the API requires a token.
    needs_token: bool,
}

impl FromRequestParts<Arc<AppState>> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        let base = format!("{}://{}", scheme(&parts.headers, state.is_tls), host(&parts.headers));
        Ok(Self { base, needs_token: !state.authenticator.is_open() })
    }
}

impl BaseUrl {
    /// Returns the URL of a service without access control.
    #[cfg(test)]
    pub fn at(base: &str) -> Self {
        Self { base: base.to_owned(), needs_token: false }
    }

    /// Returns the command that gets `path`.
    pub fn get(&self, path: &str) -> String {
        format!("curl {}{}", quoted(&format!("{}{path}", self.base)), self.token())
    }

    /// Returns the command that records a visit.
    pub fn post_visit(&self, user: &str, segment: &str) -> String {
        let body = serde_json::json!({ "user_id": user, "segment": segment }).to_string();
        let url = quoted(&format!("{}/segments", self.base));
        format!("curl -i -X POST {url} -H 'content-type: application/json'{} \\\n  -d {}", self.token(), quoted(&body))
    }

    fn token(&self) -> &'static str {
        if self.needs_token { " -H 'authorization: Bearer TOKEN'" } else { "" }
    }
}

/// Returns `https` if the listener, or a proxy in front of it, terminates TLS.
fn scheme(headers: &HeaderMap, is_tls: bool) -> &'static str {
    let forwarded = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    if is_tls || forwarded { "https" } else { "http" }
}

fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.filter(|host| !host.is_empty()).unwrap_or("localhost:8080")
}

/// Quotes `text` for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn commands_have_the_address_of_the_caller_and_a_placeholder_for_the_token() {
        let open = BaseUrl { base: "http://localhost:8080".into(), needs_token: false };
        assert_eq!(open.get("/segments/a%2Fb/count"), "curl 'http://localhost:8080/segments/a%2Fb/count'");
        let closed = BaseUrl { needs_token: true, ..open };
        assert!(closed.get("/segments").ends_with("/segments' -H 'authorization: Bearer TOKEN'"));
        assert!(closed.post_visit("u1", "it's").ends_with(r#"-d '{"segment":"it'\''s","user_id":"u1"}'"#));
    }

    #[test]
    fn scheme_is_that_of_the_listener_or_the_proxy() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            (scheme(&headers, false), scheme(&headers, true), host(&headers)),
            ("http", "https", "localhost:8080")
        );
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        headers.insert(HOST, HeaderValue::from_static("segments.example"));
        assert_eq!((scheme(&headers, false), host(&headers)), ("https", "segments.example"));
    }
}
