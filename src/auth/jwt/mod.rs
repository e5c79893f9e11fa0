//! JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)), checked as [RFC
//! 8725](https://www.rfc-editor.org/rfc/rfc8725) advises. The algorithm is the configured one, whatever the token says.

mod algorithm;
mod key_file;
mod secret;
mod verifier;

pub use self::algorithm::JwtAlgorithm;
pub(super) use self::secret::parse_secret;
pub use self::verifier::JwtConfig;
pub(super) use self::verifier::{JwtVerifier, is_over};
