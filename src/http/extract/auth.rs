//! Who may call what: an argument of a handler that is there only if the caller's token has the scope.
//!
//! It stands first among the arguments, so that nothing is read of the body, and nothing asked of Redis, before it.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use crate::auth::{Denied, Grant, Scope};
use crate::http::AppState;
use crate::http::problem::Problem;

/// The caller may do what needs the scope `S`.
pub struct May<S> {
    /// What says so.
    pub grant: Grant,
    scope: PhantomData<S>,
}

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
        match state.gate.admit(authorization(&parts.headers), S::SCOPE) {
            Ok(grant) => Ok(Self { grant, scope: PhantomData }),
            Err(denied) => Err(refuse(state, denied)),
        }
    }
}

/// The caller, and whether it may do what needs the scope `S`: for a handler that logs a refused caller, too.
pub struct Caller<S> {
    /// The name of the API key or the subject of the token, as far as it may be logged.
    pub name: Option<String>,
    /// Whether the caller may, or why not.
    pub admitted: Result<May<S>, Problem>,
}

impl<S: Needs> FromRequestParts<Arc<AppState>> for Caller<S> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        Ok(match state.gate.admit(authorization(&parts.headers), S::SCOPE) {
            Ok(grant) => Self { name: grant.name.clone(), admitted: Ok(May { grant, scope: PhantomData }) },
            Err(denied) => Self { name: denied.name().map(str::to_owned), admitted: Err(refuse(state, denied)) },
        })
    }
}

impl<S: Needs> May<S> {
    /// Checks that the token in `headers` is still accepted, for a request that outlives its first check.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when the token has expired, or the keys that were read since don't accept it.
    pub fn renew(&mut self, state: &AppState, headers: &HeaderMap) -> Result<(), Problem> {
        let renewed = state.gate.renew(&mut self.grant, authorization(headers), S::SCOPE);
        renewed.map_err(|denied| refuse(state, denied))
    }
}

fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes)
}

fn refuse(state: &AppState, denied: Denied) -> Problem {
    state.estimator.metrics().http.denied(denied.kind());
    denied.into()
}
