//! The check of a JSON Web Token.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;

use super::algorithm::JwtAlgorithm;
use super::key_file::{self, Key};
use crate::auth::error::TokenError;
use crate::auth::principal::{Principal, UNNAMED, check_name};
use crate::auth::scope::Scopes;

/// How JSON Web Tokens are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// The one algorithm that is accepted.
    pub algorithm: JwtAlgorithm,
    /// The secret of HS256; for the others a public key in PEM or a JSON Web Key Set.
    pub key_file: PathBuf,
    /// Who must have issued a token, if that is to be checked.
    pub issuer: Option<String>,
    /// Whom a token must be for. Without it, a token that has an audience is not accepted (RFC 7519, section 4.1.3).
    pub audience: Option<String>,
    /// How far the clocks of issuer and service may differ.
    pub leeway: Duration,
}

/// Checks JSON Web Tokens.
pub struct JwtVerifier {
    validation: Validation,
    keys: Vec<Key>,
}

/// The claims that matter here. Others may be there.
#[derive(Deserialize)]
struct Claims {
    /// The library has checked it, fractions included, but keeps it to itself.
    exp: f64,
    /// The library accepts a list, and, where it has nothing to compare it with, any type. RFC 7519, section 4.1.1: a text.
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
    /// As `iss`. RFC 7519, section 4.1.3: a text or a list of texts.
    #[serde(default, rename = "aud")]
    _aud: Option<OneOrMany>,
    #[serde(default)]
    sub: Option<String>,
    /// RFC 8693, section 4.2: scopes with spaces between them.
    #[serde(default)]
    scope: Option<OneOrMany>,
    /// What some issuers call it.
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
    /// A check with the keys in `text`, which is what the key file has.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line that repeats nothing of it.
    pub fn new(config: &JwtConfig, text: &str) -> Result<Self, String> {
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
        Ok(Self { validation, keys: key_file::keys(config.algorithm, text)? })
    }

    /// How many keys there are to check with.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Whom `token` belongs to.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn principal(&self, token: &str) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|error| token_error(error.kind()))?;
        // RFC 7515, section 4.1.11. The library leaves it to us.
        if header.crit.is_some() {
            return Err(TokenError::Extension);
        }
        let key = self.key(header.kid.as_deref()).ok_or(TokenError::KeyId)?;
        let claims = decode::<Claims>(token, key, &self.validation).map_err(|error| token_error(error.kind()))?.claims;
        let scopes = claims.scope.or(claims.scp).map(|scopes| scopes.scopes()).unwrap_or_default();
        // An e-mail address tells who somebody is, and names go into the log. Other subjects that pass are of services, or numbers.
        let name = claims.sub.filter(|sub| check_name(sub).is_ok() && !sub.contains('@'));
        // As the library compares it: in whole seconds.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the library has checked its range"
        )]
        let valid_until = (claims.exp.round() as u64).saturating_add(self.validation.leeway);
        Ok(Principal { name: name.unwrap_or_else(|| UNNAMED.to_owned()), scopes, valid_until: Some(valid_until) })
    }

    /// The key that a token names; the only one if it names none.
    fn key(&self, id: Option<&str>) -> Option<&DecodingKey> {
        match (self.keys.as_slice(), id) {
            // A key from PEM has no id, so it can't be the wrong one.
            ([only], None) => Some(&only.key),
            ([Key { id: None, key }], Some(_)) => Some(key),
            (keys, Some(id)) => keys.iter().find(|key| key.id.as_deref() == Some(id)).map(|key| &key.key),
            (_, None) => None,
        }
    }
}

/// Whether the Unix second `last` is over, by the clock that the library checks tokens with.
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
