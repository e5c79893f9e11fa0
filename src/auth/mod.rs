//! Authentication and authorization by bearer tokens, before a request does anything else.
//!
//! A token is an API key, whose SHA-256 digest the service knows, or a JSON Web Token that an issuer signed. Both carry
//! [`Scope`]s. Nothing here depends on HTTP except the syntax of the `Authorization` header.

mod authenticator;
mod bearer;
mod error;
mod jwt;
mod key_file;
mod keys;
pub mod mint;
mod principal;
pub mod revoke;
mod scope;
mod usage;

pub use self::authenticator::{AuthConfig, Authenticator, Grant, KeyCounts, KeysError};
pub use self::error::{AuthError, TokenError};
pub use self::jwt::{JwtAlgorithm, JwtConfig};
pub use self::key_file::KeyFileError;
pub use self::principal::Principal;
pub use self::scope::{Scope, Scopes};
pub use self::usage::{KeySample, KeyUsage};
