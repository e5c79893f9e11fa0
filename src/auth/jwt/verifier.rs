//! Verifies JSON Web Tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;

use super::algorithm::JwtAlgorithm;
use super::key_file::{self, Key};
use crate::auth::error::TokenError;
use crate::auth::principal::{Principal, UNNAMED, check_name};
use crate::auth::scope::Scopes;
use crate::auth::usage::{KeySample, KeyUsage};

/// The settings for JSON Web Tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// The only accepted algorithm.
    pub algorithm: JwtAlgorithm,
    /// The secret of HS256; for the others a public key in PEM or a JSON Web Key Set.
    pub key_file: PathBuf,
    /// The required issuer. Without it, any issuer is accepted.
    pub issuer: Option<String>,
    /// The required audience. Without it, a token that has one is refused (RFC 7519, section 4.1.3).
    pub audience: Option<String>,
    /// How far the clocks of the issuer and the service may differ.
    pub leeway: Duration,
}

/// Verifies JSON Web Tokens.
pub struct JwtVerifier {
    validation: Validation,
    keys: Vec<Key>,
    /// The counters of all tokens.
    usage: Arc<KeyUsage>,
}

/// The claims that matter here. A token may have others.
#[derive(Deserialize)]
struct Claims {
    /// The library checks it, fractions included, but doesn't return it.
    exp: f64,
    /// A string (RFC 7519, section 4.1.1). The library also accepts a list, and any type if no issuer is required.
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
    /// A string or a list of strings (RFC 7519, section 4.1.3). The library is as lenient as for `iss`.
    #[serde(default, rename = "aud")]
    _aud: Option<OneOrMany>,
    #[serde(default)]
    sub: Option<String>,
    /// Scopes separated by spaces (RFC 8693, section 4.2).
    #[serde(default)]
    scope: Option<OneOrMany>,
    /// Another name for `scope`, which some issuers use.
    #[serde(default)]
    scp: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn scopes(&self) -> Scopes {
        match self {
            Self::One(text) => Scopes::of_ours(text.split_ascii_whitespace()),
            Self::Many(texts) => Scopes::of_ours(texts.iter().map(String::as_str)),
        }
    }
}

impl JwtVerifier {
    /// Creates a verifier with the keys in `content`, that of the key file.
    ///
    /// # Errors
    ///
    /// The first mistake, in one line that repeats nothing of the file.
    pub fn new(config: &JwtConfig, content: &[u8]) -> Result<Self, String> {
        let mut validation = Validation::new(config.algorithm.in_library());
        validation.leeway = config.leeway.as_secs();
        validation.validate_nbf = true;
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        Ok(Self { validation, keys: key_file::parse(config.algorithm, content)?, usage: Arc::default() })
    }

    /// Continues the counters of the `previous` keys.
    pub fn continue_usage(&mut self, previous: &Self) {
        self.usage = Arc::clone(&previous.usage);
    }

    /// Reads the counters.
    pub fn usage(&self) -> KeySample {
        self.usage.sample("jwt", "jwt")
    }

    /// Returns the number of keys.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Verifies `token`, and returns its owner.
    ///
    /// # Errors
    ///
    /// A [`TokenError`] if the token is not valid.
    pub fn principal(&self, token: &str) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|error| token_error(error.kind()))?;
        // RFC 7515, section 4.1.11. The library doesn't check it.
        if header.crit.is_some() {
            return Err(TokenError::Extension);
        }
        let key = self.key(header.kid.as_deref()).ok_or(TokenError::KeyId)?;
        let claims = decode::<Claims>(token, key, &self.validation).map_err(|error| token_error(error.kind()))?.claims;
        let scopes = claims.scope.or(claims.scp).map(|scopes| scopes.scopes()).unwrap_or_default();
        // Names are logged, and an e-mail address identifies a person. Other plain subjects are numbers or names of
        // services.
        let name = claims.sub.filter(|sub| check_name(sub).is_ok() && !sub.contains('@'));
        // The library compares whole seconds.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the library has checked its range"
        )]
        let valid_until = (claims.exp.round() as u64).saturating_add(self.validation.leeway);
        let name = name.unwrap_or_else(|| UNNAMED.to_owned());
        Ok(Principal { name, scopes, valid_until: Some(valid_until), usage: Arc::clone(&self.usage) })
    }

    /// Returns the key that a token names, or the only key if the token names none.
    fn key(&self, id: Option<&str>) -> Option<&DecodingKey> {
        match (self.keys.as_slice(), id) {
            // A key from PEM has no ID, so it matches any.
            ([only], None) => Some(&only.key),
            ([Key { id: None, key }], Some(_)) => Some(key),
            (keys, Some(id)) => keys.iter().find(|key| key.id.as_deref() == Some(id)).map(|key| &key.key),
            (_, None) => None,
        }
    }
}

/// Returns whether the Unix second `last` is over, by the clock that the library uses.
pub fn is_over(last: u64) -> bool {
    get_current_timestamp() > last
}

fn token_error(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            TokenError::Algorithm
        }
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Immature,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => TokenError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => TokenError::Audience,
        _ => TokenError::Unreadable,
    }
}
