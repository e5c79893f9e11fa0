//! Access to the pages, which requires the scope of counts.
//!
//! Browsers ask users for a name and a password and have no support for bearer tokens. The pages therefore also accept
//! a token as the [password](crate::http::extract::password), and make a browser ask for one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::auth::Scope;
use crate::http::extract::auth::{authorization, count_request, refuse_asking};
use crate::http::extract::password::to_bearer;
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
        let tokens = authorization(&parts.headers).map(to_bearer);
        let authorized = state.authenticator.authorize(tokens, Scope::ReadSegments);
        let grant = authorized.map_err(|error| refuse_asking(state, error))?;
        if let Some(principal) = &grant.principal {
            count_request(&principal.usage);
        }
        Ok(Self)
    }
}
