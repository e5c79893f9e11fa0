//! JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)), checked as
//! [RFC 8725](https://www.rfc-editor.org/rfc/rfc8725) advises: the algorithm is the one that was set, whatever the token says.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::{Flaw, Holder, Scopes};

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

/// The algorithms that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256, and a secret that is shared with the issuer.
    Hs256,
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// Reads `HS256`, `RS256`, `ES256` or `EdDSA`.
    ///
    /// # Errors
    ///
    /// A sentence without its subject when it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "HS256" => Ok(Self::Hs256),
            "RS256" => Ok(Self::Rs256),
            "ES256" => Ok(Self::Es256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err("must be HS256, RS256, ES256 or EdDSA".to_owned()),
        }
    }

    pub(super) fn in_library(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        })
    }
}

/// Checks JSON Web Tokens.
pub struct Jwt {
    validation: Validation,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
}

/// The claims that matter here. Others may be there.
#[derive(Deserialize)]
struct Claims {
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

/// A secret that can be guessed signs anything (RFC 7518, section 3.2: at least as long as the hash).
pub(super) const MIN_SECRET_BYTES: usize = 32;

impl Jwt {
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
        let keys = if config.algorithm != JwtAlgorithm::Hs256 && text.trim_start().starts_with('{') {
            keys_of_set(config.algorithm, text)?
        } else {
            vec![Key { id: None, key: single_key(config.algorithm, text)? }]
        };
        Ok(Self { validation, keys })
    }

    /// Whom `token` belongs to.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn holder(&self, token: &str) -> Result<Holder, Flaw> {
        let header = decode_header(token).map_err(|error| flaw(error.kind()))?;
        // RFC 7515, section 4.1.11. The library leaves it to us.
        if header.crit.is_some() {
            return Err(Flaw::Extension);
        }
        let key = self.key(header.kid.as_deref()).ok_or(Flaw::KeyId)?;
        let claims = decode::<Claims>(token, key, &self.validation).map_err(|error| flaw(error.kind()))?.claims;
        let scopes = claims.scope.or(claims.scp).map(|scopes| scopes.scopes()).unwrap_or_default();
        let name = claims.sub.filter(|sub| super::keys::check_name(sub).is_ok());
        Ok(Holder { name: name.unwrap_or_else(|| "this subject".to_owned()), scopes })
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

fn single_key(algorithm: JwtAlgorithm, text: &str) -> Result<DecodingKey, String> {
    let pem = text.as_bytes();
    let no_key = |what: &str| format!("is not {what} in PEM (-----BEGIN PUBLIC KEY-----), nor a JSON Web Key Set");
    match algorithm {
        JwtAlgorithm::Hs256 => Ok(DecodingKey::from_secret(secret(text)?)),
        JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(pem).map_err(|_| no_key("an RSA public key")),
        JwtAlgorithm::Es256 => {
            /// A point on P-256, not compressed (SEC 1, section 2.3.3).
            const POINT_BYTES: usize = 65;
            let key = DecodingKey::from_ec_pem(pem).ok();
            let key = key.filter(|key| key.try_get_as_bytes().is_ok_and(|point| point.len() == POINT_BYTES));
            key.ok_or_else(|| no_key("a public key on the curve P-256"))
        }
        JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(pem).map_err(|_| no_key("an Ed25519 public key")),
    }
}

/// The secret in a key file: its text without the line end that editors add.
pub(super) fn secret(text: &str) -> Result<&[u8], String> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.starts_with("-----BEGIN") {
        return Err(
            "is a key in PEM, but HS256 needs a secret; a public key as a secret would let everybody sign".to_owned()
        );
    }
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("has a secret of {} bytes; HS256 needs {MIN_SECRET_BYTES} or more", secret.len()));
    }
    Ok(secret.as_bytes())
}

/// The keys of a set that are for this algorithm. Issuers publish others beside them.
fn keys_of_set(algorithm: JwtAlgorithm, text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is not a JSON Web Key Set: {error}"))?;
    let suitable = set.keys.iter().filter(|jwk| is_for(algorithm, jwk));
    let keys = suitable.map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("has a key that can't be used: {error}"))?;
        Ok(Key { id: jwk.common.key_id.clone(), key })
    });
    let keys = keys.collect::<Result<Vec<_>, String>>()?;
    if keys.is_empty() {
        return Err(format!("has no key for {algorithm}"));
    }
    Ok(keys)
}

fn is_for(algorithm: JwtAlgorithm, jwk: &Jwk) -> bool {
    let is_of_type = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), JwtAlgorithm::Rs256) => true,
        (AlgorithmParameters::EllipticCurve(key), JwtAlgorithm::Es256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(key), JwtAlgorithm::EdDsa) => key.curve == EllipticCurve::Ed25519,
        // HS256 among them: a set that is published must not have a secret.
        _ => false,
    };
    let common = &jwk.common;
    is_of_type
        && common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_algorithm.is_none_or(|own| own.to_string() == algorithm.to_string())
}

fn flaw(error: &ErrorKind) -> Flaw {
    match error {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            Flaw::Algorithm
        }
        ErrorKind::InvalidSignature => Flaw::Signature,
        ErrorKind::ExpiredSignature => Flaw::Expired,
        ErrorKind::ImmatureSignature => Flaw::Immature,
        ErrorKind::InvalidIssuer => Flaw::Issuer,
        ErrorKind::InvalidAudience => Flaw::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Flaw::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Flaw::Audience,
        _ => Flaw::Unreadable,
    }
}
