//! The file with the keys that JSON Web Tokens are verified with. What would let a stranger sign tokens, or verify none, is refused
//! here and not found out request by request.

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::Value;

use super::algorithm::JwtAlgorithm;
use super::secret::{BYTE_ORDER_MARK, secret};

/// A key, with the id that a set gives it.
pub struct Key {
    pub id: Option<String>,
    pub key: DecodingKey,
}

/// The keys for `algorithm` in `content`.
///
/// # Errors
///
/// What is wrong with it, in one line that repeats nothing of it.
pub fn keys(algorithm: JwtAlgorithm, content: &[u8]) -> Result<Vec<Key>, String> {
    if algorithm == JwtAlgorithm::Hs256 {
        return Ok(vec![Key { id: None, key: DecodingKey::from_secret(secret(content)?) }]);
    }
    let text = String::from_utf8_lossy(content);
    // To PEM and JSON, unlike to a secret, it is no part of what follows.
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    if text.starts_with('{') {
        return keys_of_set(algorithm, text);
    }
    Ok(vec![Key { id: None, key: key_of_pem(algorithm, text)? }])
}

fn key_of_pem(algorithm: JwtAlgorithm, text: &str) -> Result<DecodingKey, String> {
    let pem = text.as_bytes();
    let (key, what) = match algorithm {
        JwtAlgorithm::Hs256 => unreachable!("a secret is not in PEM"),
        JwtAlgorithm::Rs256 => (DecodingKey::from_rsa_pem(pem), "an RSA public key"),
        JwtAlgorithm::Es256 => (DecodingKey::from_ec_pem(pem), "a public key on the curve P-256"),
        JwtAlgorithm::EdDsa => (DecodingKey::from_ed_pem(pem), "an Ed25519 public key"),
    };
    if text.contains("PRIVATE KEY-----") {
        return Err(format!(
            "is a private key, which only the issuer may have; `openssl pkey -in FILE -pubout` makes {what} of it"
        ));
    }
    let key = key.map_err(|_| format!("is not {what} in PEM (-----BEGIN PUBLIC KEY-----), nor a JSON Web Key Set"))?;
    match check(algorithm, &key) {
        Ok(()) => Ok(key),
        Err(why) => Err(format!("is not {what} in PEM that can be used: {why}")),
    }
}

/// The keys of a set that are for this algorithm. Issuers publish others beside them, and some that can't be used: one that can
/// is enough.
fn keys_of_set(algorithm: JwtAlgorithm, text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is not a JSON Web Key Set: {error}"))?;
    if has_private_key(text) {
        return Err("has a private key (`d`), which only the issuer may have; publish the set without it".to_owned());
    }
    let mut keys = Vec::new();
    let mut obstacle = None;
    for jwk in set.keys.iter().filter(|jwk| is_for(algorithm, jwk)) {
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string());
        match key.and_then(|key| check(algorithm, &key).map(|()| key)) {
            Ok(key) => keys.push(Key { id: jwk.common.key_id.clone(), key }),
            Err(why) => obstacle = Some(why),
        }
    }
    match (keys.is_empty(), obstacle) {
        (false, _) => Ok(keys),
        (true, Some(why)) => Err(format!("has no key for {algorithm} that can be used: {why}")),
        (true, None) => Err(format!("has no key for {algorithm}")),
    }
}

/// Whether one of the keys of a set has the private part (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2).
fn has_private_key(set: &str) -> bool {
    let set: Value = serde_json::from_str(set).unwrap_or_default();
    set["keys"].as_array().into_iter().flatten().any(|key| !key["d"].is_null())
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

/// Checks that signatures can be verified with `key`. The library finds out with the first token, and calls its signature wrong.
fn check(algorithm: JwtAlgorithm, key: &DecodingKey) -> Result<(), String> {
    /// A point on P-256, not compressed (SEC 1, section 2.3.3).
    const POINT_BYTES: usize = 65;
    let parsed = |algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8], why: &str| {
        ParsedPublicKey::new(algorithm, bytes).map(drop).map_err(|_| why.to_owned())
    };
    match (algorithm, key.kind()) {
        (JwtAlgorithm::Rs256, DecodingKeyKind::SecretOrDer(der)) => {
            const WHY: &str = "its numbers are no RSA key";
            parsed(&RSA_PKCS1_2048_8192_SHA256, der, WHY)?;
            let key = RsaPublicKey::from_der(der).map_err(|_| WHY.to_owned())?;
            check_modulus(key.modulus_len() * 8)
        }
        (JwtAlgorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let components = RsaPublicKeyComponents { n, e };
            let parsed = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            parsed.map_err(|_| "its numbers are no RSA key".to_owned())?;
            check_modulus(n.len() * 8)
        }
        (JwtAlgorithm::Es256, DecodingKeyKind::SecretOrDer(point)) => {
            const WHY: &str = "it is no point on the curve P-256";
            if point.len() != POINT_BYTES {
                return Err(WHY.to_owned());
            }
            parsed(&ECDSA_P256_SHA256_FIXED, point, WHY)
        }
        (JwtAlgorithm::EdDsa, DecodingKeyKind::SecretOrDer(point)) => {
            parsed(&ED25519, point, "it is no point on the curve Ed25519")
        }
        _ => Ok(()),
    }
}

/// Refuses what aws-lc refuses when it verifies.
fn check_modulus(bits: usize) -> Result<(), String> {
    if (2_048..=8_192).contains(&bits) {
        return Ok(());
    }
    Err(format!("it has {bits} bits; RS256 needs 2048 to 8192"))
}
