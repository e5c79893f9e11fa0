//! Why a request is refused.

use std::sync::Arc;

use super::bearer::MAX_TOKEN_BYTES;
use super::principal::Principal;
use super::scope::Scope;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no token.
    #[error("This request needs a token: send the header Authorization: Bearer TOKEN.")]
    NoToken,
    /// The request has something other than one bearer token.
    #[error(
        "The Authorization header must be sent once: Bearer, a space and a token of at most {MAX_TOKEN_BYTES} bytes."
    )]
    Malformed,
    /// The request has a password, and its route accepts none.
    #[error(
        "This request accepts no name and password (HTTP Basic): send the password as the token in Authorization: Bearer TOKEN."
    )]
    PasswordRefused,
    /// The token is not valid.
    #[error("The token is not accepted: {0}.")]
    NotAccepted(TokenError),
    /// The token is valid but lacks the scope.
    #[error("The token of {} doesn't have the scope {scope}.", principal.name)]
    InsufficientScope {
        /// The owner of the token.
        principal: Arc<Principal>,
        /// The required scope.
        scope: Scope,
    },
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It matches no API key.
    #[error("it matches no API key")]
    UnknownKey,
    /// It can't be parsed, or lacks a claim.
    #[error("it is not a JSON Web Token with the required claims")]
    Unreadable,
    /// Its algorithm is not the configured one.
    #[error("it is signed with another algorithm")]
    Algorithm,
    /// Its `crit` header requires an extension, and none is supported.
    #[error("it requires an extension that is not supported")]
    Extension,
    /// It names an unknown key, or none although there are several.
    #[error("it names no known key")]
    KeyId,
    /// Its signature doesn't match the key.
    #[error("its signature is not valid")]
    Signature,
    /// `exp` is in the past.
    #[error("it has expired")]
    Expired,
    /// `nbf` is in the future.
    #[error("it is not valid yet")]
    Immature,
    /// `iss` is not the configured one.
    #[error("its issuer is not the expected one")]
    Issuer,
    /// `aud` is not the configured one.
    #[error("it is for another audience")]
    Audience,
}

impl AuthError {
    /// Returns the owner of the token, if the token is valid.
    #[must_use]
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::InsufficientScope { principal, .. } => Some(principal),
            Self::NoToken | Self::Malformed | Self::PasswordRefused | Self::NotAccepted(_) => None,
        }
    }

    /// Returns the label of a metric.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Malformed | Self::PasswordRefused => "malformed",
            Self::NotAccepted(error) => error.kind(),
            Self::InsufficientScope { .. } => "insufficient_scope",
        }
    }
}

impl TokenError {
    fn kind(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::Unreadable => "unreadable",
            Self::Algorithm => "algorithm",
            Self::Extension => "extension",
            Self::KeyId => "key_id",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Immature => "immature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}
