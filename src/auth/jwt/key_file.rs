//! The file with the keys that JSON Web Tokens are verified with. What would let a stranger sign tokens, or verify none, is refused
//! here and not found out request by request.

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::Value;

use super::algorithm::JwtAlgorithm;

/// A key, with the id that a set gives it.
pub struct Key {
    pub id: Option<String>,
    pub key: DecodingKey,
}

/// A secret that can be guessed signs anything (RFC 7518, section 3.2: at least as long as the hash).
pub(crate) const MIN_SECRET_BYTES: usize = 32;
/// Fewer different bytes than this are no secret, however many there are.
const MIN_DIFFERENT_BYTES: usize = 4;
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The keys for `algorithm` in `text`.
///
/// # Errors
///
/// What is wrong with it, in one line that repeats nothing of it.
pub fn keys(algorithm: JwtAlgorithm, text: &str) -> Result<Vec<Key>, String> {
    if algorithm == JwtAlgorithm::Hs256 {
        return Ok(vec![Key { id: None, key: DecodingKey::from_secret(secret(text)?) }]);
    }
    // To PEM and JSON, unlike to a secret, it is no part of what follows.
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    if text.starts_with('{') {
        return keys_of_set(algorithm, text);
    }
    Ok(vec![Key { id: None, key: key_of_pem(algorithm, text)? }])
}

/// The secret of HS256 in a key file: its text without the line end that editors add.
///
/// # Errors
///
/// What is wrong with it. Above all, what others may know is refused: with a public key as the secret, everybody could sign.
pub(crate) fn secret(text: &str) -> Result<&[u8], String> {
    const OTHER_KEY: &str = "but HS256 needs a secret; a public key as a secret would let everybody sign";
    let secret = text.trim_end_matches(['\r', '\n']);
    if let Some(what) = other_key(secret) {
        return Err(format!("is {what}, {OTHER_KEY}"));
    }
    if secret.starts_with(BYTE_ORDER_MARK) {
        return Err("begins with a byte order mark, which would be a part of the secret; save it without".to_owned());
    }
    if secret.bytes().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()) {
        return Err(format!("has control characters, as a key in DER has, {OTHER_KEY}, as a line of text"));
    }
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("has a secret of {} bytes; HS256 needs {MIN_SECRET_BYTES} or more", secret.len()));
    }
    let mut bytes = secret.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    if bytes.len() < MIN_DIFFERENT_BYTES {
        return Err(
            "has a secret that repeats a few bytes and can be guessed; make one with `openssl rand -hex 32`".to_owned()
        );
    }
    Ok(secret.as_bytes())
}

/// What kind of other key `text` is, as far as that can be seen.
fn other_key(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
    // Also where something stands above it, such as the Bag Attributes of openssl.
    if text.contains("-----BEGIN") {
        return Some("a key in PEM");
    }
    if text.contains("---- BEGIN SSH2") || text.split_ascii_whitespace().any(is_ssh_type) {
        return Some("a key of SSH");
    }
    if text.contains("<RSAKeyValue") {
        return Some("a key in XML");
    }
    if text.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok() {
        return Some("JSON, such as a JSON Web Key Set");
    }
    let body: String = text.split_ascii_whitespace().collect();
    let encodings = [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE];
    let mut decoded = encodings.iter().filter_map(|encoding| encoding.decode(body.as_bytes()).ok());
    decoded.find_map(|bytes| encoded_key(&bytes))
}

/// Whether `word` is a type of key as OpenSSH writes it in front of one.
fn is_ssh_type(word: &str) -> bool {
    ["ssh-rsa", "ssh-dss", "ssh-ed25519", "ssh-ed448", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|kind| word.starts_with(kind))
}

/// What kind of key the decoded `bytes` are: the body of one in PEM, or of one of SSH.
fn encoded_key(bytes: &[u8]) -> Option<&'static str> {
    if let Some((length, name)) = bytes.split_first_chunk::<4>()
        && let Some(name) = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|length| name.get(..length))
        && str::from_utf8(name).is_ok_and(is_ssh_type)
    {
        return Some("a key of SSH");
    }
    is_der(bytes).then_some("a key in DER")
}

/// Whether `bytes` are one sequence of DER that begins with a sequence or a number, as keys and certificates do. Random bytes
/// are by a chance of one to eight millions.
fn is_der(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let content = match bytes {
        [SEQUENCE, length @ ..=0x7f, content @ ..] if content.len() == usize::from(*length) => content,
        [SEQUENCE, 0x81, length, content @ ..] if content.len() == usize::from(*length) => content,
        [SEQUENCE, 0x82, high, low, content @ ..]
            if content.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
        {
            content
        }
        _ => return false,
    };
    content.first().is_some_and(|tag| [SEQUENCE, INTEGER].contains(tag))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const RSA_BODY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA";

    #[rstest]
    #[case::text("a secret of more than thirty-two bytes\n")]
    #[case::hexadecimal("3f2c8a1be0d94756a7c1f5e2384b6d9003f2c8a1be0d94756a7c1f5e2384b6d9")]
    #[case::base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")]
    #[case::spaces_within("correct horse battery staple and a few words more")]
    #[case::braces("{not json, but a secret with more than 32 bytes")]
    fn a_secret_is_kept_but_for_its_line_end(#[case] text: &str) {
        assert_eq!(secret(text), Ok(text.trim_end().as_bytes()));
    }

    #[rstest]
    #[case::pem("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "is a key in PEM, but")]
    #[case::pem_after_a_line("\n-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "is a key in PEM, but")]
    #[case::pem_after_bag_attributes(
        "Bag Attributes\n    localKeyID: 01\n-----BEGIN CERTIFICATE-----\nMFkw\n",
        "is a key in PEM, but"
    )]
    #[case::pem_after_a_mark("\u{feff}-----BEGIN PUBLIC KEY-----\nMFkw\n", "is a key in PEM, but")]
    #[case::openssh("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me@host\n", "is a key of SSH, but")]
    #[case::openssh_after_a_mark("\u{feff} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKp me\n", "is a key of SSH, but")]
    #[case::openssh_after_options("restrict,pty ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTIt me\n", "is a key of SSH, but")]
    #[case::openssh_of_a_token("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5z\n", "is a key of SSH, but")]
    #[case::openssh_body("AAAAB3NzaC1yc2EAAAADAQABAAABgQC7vbqajDhA5ewmvz4SFMZy\n", "is a key of SSH, but")]
    #[case::ssh2("---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABgQC7\n", "is a key of SSH, but")]
    #[case::set(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, "is JSON, such as a JSON Web Key Set, but")]
    #[case::set_after_a_mark("\u{feff}{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}\n", "is JSON, such as")]
    #[case::jwk("\n{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}\n", "is JSON, such as")]
    #[case::list_of_keys(r#"[{"kty":"RSA","n":"AQAB","e":"AQAB"}]"#, "is JSON, such as")]
    #[case::xml("<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>", "is a key in XML, but")]
    #[case::der_in_base64("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=", "is a key in DER, but")]
    #[case::der_in_base64_of_several_lines(
        "MCowBQYDK2VwAyEAGb9ECWmEzf6F\nQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n",
        "is a key in DER, but"
    )]
    #[case::der_in_hexadecimal(
        "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1",
        "is a key in DER, but"
    )]
    #[case::der(
        "0*0\u{5}\u{6}\u{3}+ep\u{3}!\0abcdefghijklmnopqrstuvwxyz012345",
        "has control characters, as a key in DER"
    )]
    #[case::byte_order_mark("\u{feff}a secret of more than thirty-two bytes", "begins with a byte order mark")]
    #[case::spaces(&" ".repeat(32), "has a secret that repeats a few bytes")]
    #[case::zeros(&"0".repeat(64), "has a secret that repeats a few bytes")]
    #[case::three_bytes(&"abc".repeat(20), "has a secret that repeats a few bytes")]
    #[case::short("short\n", "has a secret of 5 bytes; HS256 needs 32 or more")]
    #[case::empty("\n", "has a secret of 0 bytes")]
    fn a_secret_that_others_know_or_guess_is_refused(#[case] text: &str, #[case] message: &str) {
        let error = secret(text).unwrap_err();
        assert!(error.starts_with(message) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn der_is_told_by_its_length() {
        let bytes = BASE64_NOPAD.decode(RSA_BODY.as_bytes()).unwrap();
        let rest = 4 + 0x122 - bytes.len();
        let whole = [bytes.as_slice(), &vec![7; rest]].concat();
        assert!(is_der(&whole) && !is_der(&whole[1..]) && !is_der(&bytes) && !is_der(&[]));
        assert!(other_key(&BASE64.encode(&whole)).is_some() && other_key(RSA_BODY).is_none());
    }
}
