//! A token as the password of HTTP Basic (RFC 7617), with any name, for browsers and spreadsheets.
//!
//! A browser repeats a password with every request, even with requests that another site initiates. So a password is
//! accepted only for reading: such a request changes nothing, and the other site can't read the answer.

use std::borrow::Cow;

use axum::http::HeaderValue;
use data_encoding::BASE64;

use crate::auth::AuthError;
use crate::http::problem::Problem;

/// Returns the problem of `error` that makes a browser ask for a password. Another password does not help a user whose
/// token is accepted but lacks the scope.
pub fn ask_for_password(error: AuthError) -> Problem {
    const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="segment-estimator", charset="UTF-8""#);
    let is_forbidden = matches!(error, AuthError::InsufficientScope { .. });
    let problem = Problem::from(error);
    if is_forbidden { problem } else { problem.with_challenge(CHALLENGE) }
}

/// Converts a password in an `Authorization` header into a bearer token. Returns other headers unchanged.
pub fn to_bearer(header: &[u8]) -> Cow<'_, [u8]> {
    password(header).map_or(Cow::Borrowed(header), |password| Cow::Owned([b"Bearer ", password.as_slice()].concat()))
}

/// Returns whether an `Authorization` header has a password.
pub fn is_password(header: &[u8]) -> bool {
    password(header).is_some()
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
    fn to_bearer_takes_the_password_as_token(#[case] header: &str, #[case] expected: &str) {
        assert_eq!(String::from_utf8_lossy(&to_bearer(header.as_bytes())), expected);
    }
}
