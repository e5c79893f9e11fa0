//! Access to the pages, which requires the scope of counts.
//!
//! Browsers ask users for a name and a password and have no support for bearer tokens. The pages therefore also accept
//! a token as the password of HTTP Basic (RFC 7617), with any name. A browser repeats a password with every request,
//! even with requests that another site initiates. That is safe because no page changes anything; the API does not
//! accept passwords.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use data_encoding::BASE64;

use crate::auth::{AuthError, Scope};
use crate::http::extract::scope::ArgumentScope;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Caller who may see the pages.
pub struct PageAuth;

impl ArgumentScope for PageAuth {
    const SCOPE: Option<Scope> = Some(Scope::ReadSegments);
}

impl FromRequestParts<Arc<AppState>> for PageAuth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let headers: Vec<_> =
            parts.headers.get_all(AUTHORIZATION).iter().map(|header| bearer(header.as_bytes())).collect();
        match state.authenticator.authorize(headers.iter().map(AsRef::as_ref), Scope::ReadSegments) {
            Ok(_) => Ok(Self),
            Err(error) => {
                state.metrics.http.denied(error.kind());
                // Another password does not help a user whose token is accepted but lacks the scope.
                let asks_for_password = !matches!(error, AuthError::InsufficientScope { .. });
                let problem = Problem::from(error);
                Err(if asks_for_password { problem.with_challenge(CHALLENGE) } else { problem })
            }
        }
    }
}

const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="segment-estimator", charset="UTF-8""#);

/// Converts a password into a bearer token. Returns other headers unchanged.
fn bearer(header: &[u8]) -> Cow<'_, [u8]> {
    password(header).map_or(Cow::Borrowed(header), |password| Cow::Owned([b"Bearer ", password.as_slice()].concat()))
}

fn password(header: &[u8]) -> Option<Vec<u8>> {
    const SCHEME: &[u8] = b"basic ";
    let (scheme, credentials) = header.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let credentials = BASE64.decode(credentials.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &credentials)?;
    Some(credentials[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::name_and_password("Basic bWU6c2VrX2E=", "Bearer sek_a")]
    #[case::no_name("basic OnNla19h", "Bearer sek_a")]
    #[case::colons("Basic bWU6YTpi", "Bearer a:b")]
    #[case::no_password("Basic bWU6", "Bearer ")]
    #[case::bearer("Bearer sek_a", "Bearer sek_a")]
    #[case::no_colon("Basic bWU=", "Basic bWU=")]
    #[case::not_base64("Basic me:sek_a", "Basic me:sek_a")]
    #[case::empty("", "")]
    fn bearer_takes_the_password_as_token(#[case] header: &str, #[case] expected: &str) {
        assert_eq!(String::from_utf8_lossy(&bearer(header.as_bytes())), expected);
    }
}
