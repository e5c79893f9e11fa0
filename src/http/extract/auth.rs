//! Extractors that authorize the caller.
//!
//! They are the first argument of a handler, so that the body is not read and Redis is not queried before the caller is
//! authorized.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use super::password::{ask_for_password, is_password, to_bearer};
use super::table::wants_csv;
use crate::auth::{AuthError, Grant, KeyUsage, Scope};
use crate::http::accept::is_navigation;
use crate::http::caller;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Caller whose token has the scope `S`.
pub struct Authorized<S> {
    grant: Grant,
    scope: PhantomData<S>,
}

/// Scope as a type.
pub trait RequiredScope {
    const SCOPE: Scope;
}

/// `segments:write`
pub struct Write;

impl RequiredScope for Write {
    const SCOPE: Scope = Scope::WriteSegments;
}

/// `segments:read`
pub struct Read;

impl RequiredScope for Read {
    const SCOPE: Scope = Scope::ReadSegments;
}

/// `segments:delete`
pub struct DeleteSegments;

impl RequiredScope for DeleteSegments {
    const SCOPE: Scope = Scope::DeleteSegments;
}

/// `users:read`
pub struct ReadUsers;

impl RequiredScope for ReadUsers {
    const SCOPE: Scope = Scope::ReadUsers;
}

/// `users:delete`
pub struct DeleteUsers;

impl RequiredScope for DeleteUsers {
    const SCOPE: Scope = Scope::DeleteUsers;
}

impl<S: RequiredScope> FromRequestParts<Arc<AppState>> for Authorized<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        // Spreadsheets know passwords alone.
        let accepts_password = S::SCOPE == Scope::ReadSegments && parts.method.is_safe();
        let headers = authorization(&parts.headers);
        let tokens = headers.map(|header| if accepts_password { to_bearer(header) } else { header.into() });
        match state.authenticator.authorize(tokens, S::SCOPE) {
            Ok(grant) => Ok(Self::count(grant)),
            // A link of a page leads here, and the browser sends the password of the pages to the pages alone. Many
            // programs that load tables send a password only after a challenge.
            Err(error) if accepts_password && (is_navigation(&parts.headers) || wants_csv(parts)) => {
                Err(refuse_asking(state, error))
            }
            Err(error) if accepts_password => Err(refuse(state, error)),
            Err(error) => Err(refuse(state, explain(error, &parts.headers))),
        }
    }
}

impl<S> Authorized<S> {
    /// Counts the request.
    fn count(grant: Grant) -> Self {
        if let Some(principal) = &grant.principal {
            count_request(&principal.usage);
        }
        Self { grant, scope: PhantomData }
    }

    /// Returns the counters of the caller's key. `None` without access control.
    pub fn usage(&self) -> Option<&Arc<KeyUsage>> {
        self.grant.principal.as_ref().map(|principal| &principal.usage)
    }
}

impl<S: RequiredScope> Authorized<S> {
    /// Authorizes the token in `headers` again, for a request that outlives its first authorization.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the token has expired or was revoked.
    pub fn renew(&mut self, state: &AppState, headers: &HeaderMap) -> Result<(), Problem> {
        let renewed = state.authenticator.renew(&mut self.grant, authorization(headers), S::SCOPE);
        renewed.map_err(|error| {
            state.metrics.http.denied(error.kind());
            error.into()
        })
    }
}

/// Caller that may or may not be authorized, for a handler that logs refused callers as well.
pub struct Caller<S> {
    /// Name of the API key or subject of the token. `None` if it must not be logged.
    pub name: Option<String>,
    /// The authorization, or why it failed.
    pub authorized: Result<Authorized<S>, Problem>,
}

impl<S: RequiredScope> FromRequestParts<Arc<AppState>> for Caller<S> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        Ok(match state.authenticator.authorize(authorization(&parts.headers), S::SCOPE) {
            Ok(grant) => {
                let name = grant.principal.as_ref().map(|principal| principal.name.clone());
                Self { name, authorized: Ok(Authorized::count(grant)) }
            }
            Err(error) => Self {
                name: error.principal().map(|principal| principal.name.clone()),
                authorized: Err(refuse(state, explain(error, &parts.headers))),
            },
        })
    }
}

/// Returns the `Authorization` headers.
pub fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes)
}

/// Refuses the caller and makes it ask for a password.
pub fn refuse_asking(state: &AppState, error: AuthError) -> Problem {
    count_refusal(state, &error);
    ask_for_password(error)
}

/// Explains the refusal of a password by a route that accepts none.
fn explain(error: AuthError, headers: &HeaderMap) -> AuthError {
    let is_refused_password = error == AuthError::Malformed && authorization(headers).any(is_password);
    if is_refused_password { AuthError::PasswordRefused } else { error }
}

fn refuse(state: &AppState, error: AuthError) -> Problem {
    count_refusal(state, &error);
    error.into()
}

fn count_refusal(state: &AppState, error: &AuthError) {
    state.metrics.http.denied(error.kind());
    if let Some(principal) = error.principal() {
        count_request(&principal.usage);
    }
}

/// Counts a request with a valid token.
pub fn count_request(usage: &Arc<KeyUsage>) {
    usage.request();
    caller::set(Arc::clone(usage));
}
