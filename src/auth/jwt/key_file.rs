//! The file with the keys that verify JSON Web Tokens. A key that would let strangers sign, or that no signature fits,
//! is refused when the file is read.

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::Value;

use super::algorithm::JwtAlgorithm;
use super::secret::{BYTE_ORDER_MARK, parse_secret};

/// A key, and its ID in the set.
pub struct Key {
    pub id: Option<String>,
    pub key: DecodingKey,
}

/// Returns the keys for `algorithm` in `content`, that of the key file.
///
/// # Errors
///
/// The flaw of the file, in one line that repeats nothing of it.
pub fn parse(algorithm: JwtAlgorithm, content: &[u8]) -> Result<Vec<Key>, String> {
    if algorithm == JwtAlgorithm::Hs256 {
        return Ok(vec![Key { id: None, key: DecodingKey::from_secret(parse_secret(content)?) }]);
    }
    let text = String::from_utf8_lossy(content);
    // A byte order mark is no part of PEM or JSON.
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    if text.starts_with('{') {
        return parse_set(algorithm, text);
    }
    Ok(vec![Key { id: None, key: parse_pem(algorithm, text)? }])
}

fn parse_pem(algorithm: JwtAlgorithm, text: &str) -> Result<DecodingKey, String> {
    let pem = text.as_bytes();
    let (key, kind) = match algorithm {
        JwtAlgorithm::Hs256 => unreachable!("a secret is not in PEM"),
        JwtAlgorithm::Rs256 => (DecodingKey::from_rsa_pem(pem), "an RSA public key"),
        JwtAlgorithm::Es256 => (DecodingKey::from_ec_pem(pem), "a public key on the curve P-256"),
        JwtAlgorithm::EdDsa => (DecodingKey::from_ed_pem(pem), "an Ed25519 public key"),
    };
    if text.contains("PRIVATE KEY-----") {
        return Err(format!(
            "is a private key, which only the issuer may have; `openssl pkey -in FILE -pubout` makes {kind} of it"
        ));
    }
    let key = key.map_err(|_| format!("is not {kind} in PEM (-----BEGIN PUBLIC KEY-----), nor a JSON Web Key Set"))?;
    match check(algorithm, &key) {
        Ok(()) => Ok(key),
        Err(why) => Err(format!("is not {kind} in PEM that can be used: {why}")),
    }
}

/// Returns the usable keys of a set for `algorithm`. One is enough: issuers also publish keys for other algorithms, and
/// keys that can't be used.
fn parse_set(algorithm: JwtAlgorithm, text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is not a JSON Web Key Set: {error}"))?;
    if has_private_key(text) {
        return Err("has a private key (`d`), which only the issuer may have; publish the set without it".to_owned());
    }
    let mut keys = Vec::new();
    let mut flaw = None;
    for jwk in set.keys.iter().filter(|jwk| is_for(algorithm, jwk)) {
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string());
        match key.and_then(|key| check(algorithm, &key).map(|()| key)) {
            Ok(key) => keys.push(Key { id: jwk.common.key_id.clone(), key }),
            Err(why) => flaw = Some(why),
        }
    }
    match (keys.is_empty(), flaw) {
        (false, _) => Ok(keys),
        (true, Some(why)) => Err(format!("has no key for {algorithm} that can be used: {why}")),
        (true, None) => Err(format!("has no key for {algorithm}")),
    }
}

/// Returns whether a key of the set has its private part (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2).
fn has_private_key(set: &str) -> bool {
    let set: Value = serde_json::from_str(set).unwrap_or_default();
    set["keys"].as_array().into_iter().flatten().any(|key| !key["d"].is_null())
}

fn is_for(algorithm: JwtAlgorithm, jwk: &Jwk) -> bool {
    let is_of_type = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), JwtAlgorithm::Rs256) => true,
        (AlgorithmParameters::EllipticCurve(key), JwtAlgorithm::Es256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(key), JwtAlgorithm::EdDsa) => key.curve == EllipticCurve::Ed25519,
        // A published set must not have the secret of HS256.
        _ => false,
    };
    let common = &jwk.common;
    is_of_type
        && common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_algorithm.is_none_or(|own| own.to_string() == algorithm.to_string())
}

/// Checks that `key` can verify signatures. The library checks it with the first token only, and reports a wrong
/// signature.
fn check(algorithm: JwtAlgorithm, key: &DecodingKey) -> Result<(), String> {
    /// The length of an uncompressed point on P-256 (SEC 1, section 2.3.3).
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

/// Refuses the lengths that aws-lc refuses at verification.
fn check_modulus(bits: usize) -> Result<(), String> {
    if (2_048..=8_192).contains(&bits) {
        return Ok(());
    }
    Err(format!("it has {bits} bits; RS256 needs 2048 to 8192"))
}
