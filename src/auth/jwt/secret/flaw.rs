//! Recognizes what is public or easy to guess by its structure, also within base64 and hexadecimal.

use std::collections::HashSet;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde_json::Value;

/// What editors on Windows put in front of UTF-8.
pub(in crate::auth::jwt) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The length of the hash: a shorter secret can be guessed (RFC 7518, section 3.2).
pub(super) const MIN_BYTES: usize = 32;

pub(super) const FORM: &str = "has spaces, several lines or characters beyond ASCII";

/// Words of placeholders, such as the secret of <https://jwt.io>. Their length makes them unlikely in random text.
const PLACEHOLDERS: [&str; 8] = ["secret", "password", "change", "example", "default", "secure", "string", "random"];
/// Beginnings of URLs and fingerprints, in any case.
const PUBLIC_PREFIXES: [&str; 3] = ["http://", "https://", "sha256:"];
/// Beginnings of public keys of age, which are in one case.
const AGE_PREFIXES: [&str; 2] = ["age1", "AGE1"];
/// Beginnings of keys of SSH and OpenPGP, and of packed files.
const PUBLIC_MAGICS: [&[u8]; 8] = [
    b"\0\0\0",
    b"\x98\x33\x04",
    b"\x98\x38\x04",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ",
];

/// Returns what makes `bytes` public or easy to guess, as a predicate.
pub(super) fn flaw(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok();
    let text = text.filter(|text| text.chars().all(|char| !char.is_control() || char.is_whitespace()));
    let flaw = if String::from_utf8_lossy(bytes).contains("-----BEGIN") {
        Some("is a key in PEM")
    } else if let Some(text) = text {
        text_flaw(text)
    } else {
        binary_flaw(bytes)
    };
    let guessable = || is_guessable(bytes).then_some("repeats a few bytes, or follows a pattern that can be guessed");
    flaw.or_else(guessable).map(str::to_owned).or_else(|| text.and_then(encoded_flaw))
}

fn text_flaw(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
    let lower_case = text.to_ascii_lowercase();
    let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok();
    if is_json || text.replace('\\', "").contains("\"kty\"") {
        Some("is JSON, such as a JSON Web Key Set")
    } else if text.len() >= MIN_BYTES && text.contains(char::is_whitespace) {
        Some(FORM)
    } else if PUBLIC_PREFIXES.iter().any(|prefix| lower_case.starts_with(prefix)) {
        Some("is a URL or a fingerprint")
    } else if AGE_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        Some("is a public key of age")
    } else if text.split([':', '-']).all(|pair| pair.len() == 2) {
        Some("is a fingerprint")
    } else if PLACEHOLDERS.iter().any(|word| lower_case.contains(word)) {
        Some("has a word that placeholders have")
    } else {
        None
    }
}

fn binary_flaw(bytes: &[u8]) -> Option<&'static str> {
    if is_der(bytes) {
        Some("is a key in DER")
    } else if is_point(bytes) {
        Some("is a public key on a curve")
    } else if PUBLIC_MAGICS.iter().any(|magic| bytes.starts_with(magic)) {
        Some("is a key of SSH or OpenPGP, or a packed file")
    } else if bytes.len() == 42 && bytes.starts_with(b"Ed") {
        Some("is a public key of minisign or signify")
    } else {
        None
    }
}

/// Returns the flaw of what `text`, or a part of it, encodes. A shorter part encodes anything by chance.
fn encoded_flaw(text: &str) -> Option<String> {
    let parts = text.split(|char: char| !(char.is_ascii_alphanumeric() || "+/-_".contains(char)));
    let mut decoded = parts.filter(|part| part.len() >= MIN_BYTES).flat_map(decodings);
    let flaw = decoded.find_map(|bytes| flaw(&bytes))?;
    let encoded = " in base64 or hexadecimal";
    Some(if flaw.ends_with(encoded) { flaw } else { flaw + encoded })
}

/// Returns what `part` decodes to, if it is base64 or hexadecimal without the padding. An incomplete group at the end
/// is ignored.
fn decodings(part: &str) -> Vec<Vec<u8>> {
    [(BASE64_NOPAD, 4), (BASE64URL_NOPAD, 4), (HEXLOWER_PERMISSIVE, 2)]
        .into_iter()
        .filter_map(|(encoding, group)| {
            let whole = part.len() - part.len() % group;
            encoding.decode(part.as_bytes()).or_else(|_| encoding.decode(&part.as_bytes()[..whole])).ok()
        })
        .collect()
}

/// Returns whether `bytes` are a DER sequence that begins with a sequence or a number, as keys and certificates do. A
/// long one may be cut off. One in four million random secrets is.
fn is_der(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let content = match bytes {
        [SEQUENCE, length @ ..=0x7f, content @ ..] if content.len() == usize::from(*length) => content,
        [SEQUENCE, 0x81, length, content @ ..] if content.len() == usize::from(*length) => content,
        [SEQUENCE, 0x82, _, _, content @ ..] => content,
        _ => return false,
    };
    content.first().is_some_and(|tag| [SEQUENCE, INTEGER].contains(tag))
}

/// Returns whether `bytes` are an uncompressed point on a NIST curve, and so a public key.
fn is_point(bytes: &[u8]) -> bool {
    [&ECDSA_P256_SHA256_FIXED, &ECDSA_P384_SHA384_FIXED, &ECDSA_P521_SHA512_FIXED]
        .into_iter()
        .any(|curve| bytes.starts_with(&[4]) && ParsedPublicKey::new(curve, bytes).is_ok())
}

/// Returns whether `bytes`, or the steps from each to the next, have few different values or repeat a quarter of their
/// sequences.
fn is_guessable(bytes: &[u8]) -> bool {
    // Random bytes, hexadecimal or decimal digits have fewer different values by a chance of one to ten million.
    const MIN_VALUES: usize = 6;
    const SEQUENCE: usize = 4;
    let steps: Vec<_> = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    bytes.len() >= MIN_BYTES / 2
        && [bytes, &steps].iter().any(|values| {
            let different = |length| values.windows(length).collect::<HashSet<_>>().len();
            different(1) < MIN_VALUES || different(SEQUENCE) * 4 < (values.len() - SEQUENCE + 1) * 3
        })
}
