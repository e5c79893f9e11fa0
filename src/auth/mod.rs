//! Who may do what: bearer tokens, checked before anything else happens.
//!
//! A token is an API key, of which the service knows the SHA-256 digest, or a JSON Web Token that somebody else signed. Both
//! carry [`Scope`]s. There is no HTTP here but the text of the `Authorization` header.

mod authenticator;
mod bearer;
mod error;
mod jwt;
mod keys;
pub mod mint;
mod principal;
mod scope;

pub use self::authenticator::{AuthConfig, Authenticator, Grant, KeyCounts, KeysError};
pub use self::error::{AuthError, TokenError};
pub use self::jwt::{JwtAlgorithm, JwtConfig};
pub use self::scope::{Scope, Scopes};
