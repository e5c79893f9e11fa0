//! The API requests behind a page, as shell commands.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::public_url::PublicUrl;
use crate::http::state::AppState;

/// Base URL of the service, as the caller reaches it.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    base: PublicUrl,
    /// Whether the API requires a token.
    needs_token: bool,
}

impl FromRequestParts<Arc<AppState>> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        let configured = state.public_url.clone();
        let base = configured.unwrap_or_else(|| PublicUrl::of_request(&parts.headers, state.is_tls));
        Ok(Self { base, needs_token: !state.authenticator.is_open() })
    }
}

impl BaseUrl {
    /// Returns the URL of a service without access control.
    #[cfg(test)]
    pub fn at(base: &str) -> Self {
        Self { base: PublicUrl::parse(base).unwrap(), needs_token: false }
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

/// Quotes `text` for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_address_of_the_caller_and_a_placeholder_for_the_token() {
        let open = BaseUrl::at("http://localhost:8080");
        assert_eq!(open.get("/segments/a%2Fb/count"), "curl 'http://localhost:8080/segments/a%2Fb/count'");
        let closed = BaseUrl { needs_token: true, ..open };
        assert!(closed.get("/segments").ends_with("/segments' -H 'authorization: Bearer TOKEN'"));
        assert!(closed.post_visit("u1", "it's").ends_with(r#"-d '{"segment":"it'\''s","user_id":"u1"}'"#));
    }
}
