//! Access to the pages, which requires the scope of counts.
//!
//! Browsers ask users for a name and a password and have no support for bearer tokens. The pages therefore also accept
//! a token as the [password](crate::http::extract::password), and are the only answers that make a browser ask for one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;

use crate::auth::{AuthError, Scope};
use crate::http::extract::auth::authorization;
use crate::http::extract::password;
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
        let tokens = authorization(&parts.headers).map(password::to_bearer);
        match state.authenticator.authorize(tokens, Scope::ReadSegments) {
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
