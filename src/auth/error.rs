//! Why a request is turned away.

use super::bearer::MAX_TOKEN_BYTES;
use super::scope::Scope;

/// Why a caller may not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("This needs a token: send the header Authorization: Bearer TOKEN.")]
    NoToken,
    /// There is something else than one bearer token.
    #[error(
        "The Authorization header must be given once, and be Bearer, a space and a token of at most {MAX_TOKEN_BYTES} bytes."
    )]
    Malformed,
    /// The token is none that we accept, for this reason.
    #[error("The token is not accepted: {0}.")]
    NotAccepted(TokenError),
    /// The token is accepted, but not for this.
    #[error("The token of {principal} doesn't have the scope {scope}.")]
    InsufficientScope {
        /// Whose token it is.
        principal: String,
        /// What it would need.
        scope: Scope,
    },
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no key of ours.
    #[error("it is none of the API keys")]
    UnknownKey,
    /// It can't be read.
    #[error("it is not a JSON Web Token with the claims that are needed")]
    Unreadable,
    /// Its algorithm is not the one that was set.
    #[error("it is signed with another algorithm")]
    Algorithm,
    /// It says that it must not be accepted without an extension that we don't have.
    #[error("it has an extension that is not known here")]
    Extension,
    /// It names a key that we don't have, or none where there are several.
    #[error("it names no key that is known here")]
    KeyId,
    /// It was not signed with our key.
    #[error("its signature is not valid")]
    Signature,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    Immature,
    /// It is from somebody else.
    #[error("its issuer is not the one that is expected")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
}

impl AuthError {
    /// Whose token it was, if that is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::InsufficientScope { principal, .. } => Some(principal),
            Self::NoToken | Self::Malformed | Self::NotAccepted(_) => None,
        }
    }

    /// What a metric calls this: a fixed word for each kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Malformed => "malformed",
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
