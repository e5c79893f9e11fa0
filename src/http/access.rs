//! Who may call what: an argument of a handler that is there only if the caller's token has the scope.
//!
//! It stands first among the arguments, so that nothing is read of the body, and nothing asked of Redis, before it.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::AppState;
use super::problem::{Problem, ProblemKind};
use crate::auth::{Denied, Scope};

/// The caller may do what needs the scope `S`.
pub struct May<S>(PhantomData<S>);

/// A scope as a type.
pub trait Needs {
    /// The scope.
    const SCOPE: Scope;
}

/// `segments:write`.
pub struct Write;

impl Needs for Write {
    const SCOPE: Scope = Scope::WriteSegments;
}

/// `segments:read`.
pub struct Read;

impl Needs for Read {
    const SCOPE: Scope = Scope::ReadSegments;
}

/// `users:read`.
pub struct ReadUsers;

impl Needs for ReadUsers {
    const SCOPE: Scope = Scope::ReadUsers;
}

/// `users:delete`.
pub struct DeleteUsers;

impl Needs for DeleteUsers {
    const SCOPE: Scope = Scope::DeleteUsers;
}

impl<S: Needs> FromRequestParts<Arc<AppState>> for May<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let headers = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        match state.gate.admit(headers, S::SCOPE) {
            Ok(()) => Ok(Self(PhantomData)),
            Err(denied) => {
                state.estimator.metrics().http.denied(denied.kind());
                Err(denied.into())
            }
        }
    }
}

/// RFC 6750, section 3: what a client is told of the token that it needs.
impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let detail = denied.to_string();
        let (kind, challenge) = match &denied {
            Denied::NoToken => (ProblemKind::Unauthorized, String::new()),
            Denied::Malformed | Denied::NotAccepted(_) => {
                (ProblemKind::Unauthorized, format!(r#", error="invalid_token", error_description="{detail}""#))
            }
            Denied::Insufficient { scope, .. } => {
                (ProblemKind::InsufficientScope, format!(r#", error="insufficient_scope", scope="{scope}""#))
            }
        };
        let challenge = HeaderValue::try_from(format!(r#"Bearer realm="segment-estimator"{challenge}"#));
        Self::new(kind, detail).challenging(challenge.expect("the texts have neither quotes nor control characters"))
    }
}
