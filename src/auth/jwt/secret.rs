//! The secret of HS256. Anybody who knows it can sign, so that a file with something public, such as the issuer's public key, lets
//! everybody in.
//!
//! No list of public things is complete. So a secret has to look like one: random bytes, or one word of text, of a length that
//! public keys exceed. What still has that form, and tells by its structure that it is public, is refused, also within base64 and
//! hexadecimal.

use std::collections::HashSet;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde_json::Value;

/// What editors on Windows put in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

const CONTROL_CHARACTERS: &str = "is text with control characters, or text in UTF-16";
const GUESSABLE: &str = "repeats a few bytes, or follows a pattern that can be guessed";

/// A shorter secret can be guessed (RFC 7518, section 3.2: at least as long as the hash).
const MIN_BYTES: usize = 32;
/// The modulus of an RSA key has that many bytes at the least, and twice as many digits.
const MAX_BYTES: usize = 256;
/// Random bytes, hexadecimal or decimal digits have fewer different ones by a chance of one to ten millions.
const MIN_DIFFERENT_BYTES: usize = 6;

/// Returns the secret in a key file: its text without the line end that editors add, or its bytes if they are no text.
///
/// # Errors
///
/// What is wrong with it, in one line that repeats nothing of it.
pub(in crate::auth) fn secret(content: &[u8]) -> Result<&[u8], String> {
    const ADVICE: &str =
        "but HS256 needs a secret that nobody else knows, in one line; make one with `openssl rand -hex 32`";
    let secret = text(content).map_or(content, |text| text.trim_end_matches(['\r', '\n']).as_bytes());
    if let Some(flaw) = flaw(secret).or_else(|| is_mostly_ascii(secret).then(|| CONTROL_CHARACTERS.to_owned())) {
        return Err(format!("{flaw}, {ADVICE}"));
    }
    match secret.len() {
        bytes @ ..MIN_BYTES => Err(format!("has a secret of {bytes} bytes; HS256 needs {MIN_BYTES} or more")),
        MIN_BYTES..=MAX_BYTES => Ok(secret),
        bytes => Err(format!("has {bytes} bytes, more than the {MAX_BYTES} that a secret may have, {ADVICE}")),
    }
}

/// Returns `bytes` as text, if all of them are.
fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| text.chars().all(|char| !char.is_control() || char.is_whitespace()))
}

/// Returns what tells that others know or guess `bytes`, without its subject.
fn flaw(bytes: &[u8]) -> Option<String> {
    match text(bytes) {
        Some(text) => flaw_of_text(text),
        None => flaw_of_binary(bytes).map(str::to_owned),
    }
}

fn flaw_of_text(text: &str) -> Option<String> {
    if let Some(what) = public_text(text) {
        return Some(format!("is {what}"));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return Some("begins with a byte order mark, which would be a part of the secret".to_owned());
    }
    if text.contains(['\r', '\n']) {
        return Some("has several lines, as keys and certificates have".to_owned());
    }
    if text.contains(char::is_whitespace) {
        return Some("has spaces, as descriptions of keys have".to_owned());
    }
    if is_guessable(text.as_bytes()) {
        return Some(GUESSABLE.to_owned());
    }
    // A shorter part of a text may be anything by chance.
    let parts = text.split(|char: char| !(char.is_ascii_alphanumeric() || "+/-_".contains(char)));
    let mut decoded = parts.filter(|part| part.len() >= MIN_BYTES || part.len() == text.len()).flat_map(decodings);
    decoded.find_map(|bytes| flaw(&bytes)).map(|flaw| {
        let encoded = " in base64 or hexadecimal";
        if flaw.ends_with(encoded) { flaw } else { flaw + encoded }
    })
}

/// Returns what kind of public thing `text` is, as far as that can be seen.
fn public_text(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
    // Also where something stands above it, such as the Bag Attributes of openssl.
    if text.contains("-----BEGIN") {
        return Some("a key in PEM");
    }
    if text.contains("---- BEGIN SSH2") || text.split_ascii_whitespace().any(is_ssh_type) || text.starts_with("SHA256:")
    {
        return Some("a key of SSH");
    }
    if text.starts_with("age1") {
        return Some("a public key of age");
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return Some("a URL");
    }
    let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok();
    (is_json || text.replace('\\', "").contains("\"kty\"")).then_some("JSON, such as a JSON Web Key Set")
}

/// Whether `word` is a type of key as OpenSSH writes it in front of one.
fn is_ssh_type(word: &str) -> bool {
    ["ssh-rsa", "ssh-dss", "ssh-ed25519", "ssh-ed448", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|kind| word.starts_with(kind))
}

/// Returns what `part` decodes to, if it is base64 or hexadecimal without the padding. A cut off end is passed over.
fn decodings(part: &str) -> Vec<Vec<u8>> {
    [(BASE64_NOPAD, 4), (BASE64URL_NOPAD, 4), (HEXLOWER_PERMISSIVE, 2)]
        .into_iter()
        .filter_map(|(encoding, group)| {
            let whole = part.len() - part.len() % group;
            encoding.decode(part.as_bytes()).or_else(|_| encoding.decode(&part.as_bytes()[..whole])).ok()
        })
        .filter(|decoded| !decoded.is_empty())
        .collect()
}

/// Returns what tells that `bytes`, which are no text, are not random.
fn flaw_of_binary(bytes: &[u8]) -> Option<&'static str> {
    const PACKED: [&[u8]; 5] = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"BZh", b"\xfd7zXZ"];
    // Of which each has a length of its own: a packet with a public key on a curve.
    const OPENPGP: [&[u8]; 2] = [b"\x98\x33\x04", b"\x98\x38\x04"];
    let begins_with = |magics: &[&[u8]]| magics.iter().any(|magic| bytes.starts_with(magic));
    if is_ssh_key(bytes) {
        Some("is a key of SSH")
    } else if is_der(bytes) {
        Some("is a key in DER")
    } else if is_point(bytes) {
        Some("is a public key on a curve")
    } else if begins_with(&OPENPGP) {
        Some("is a key of OpenPGP")
    } else if bytes.len() == 42 && bytes.starts_with(b"Ed") {
        Some("is a public key of minisign or signify")
    } else if begins_with(&PACKED) {
        Some("is a packed file")
    } else if is_guessable(bytes) {
        Some(GUESSABLE)
    } else {
        None
    }
}

/// Whether `secret` is no text, and nearly all of it is ASCII: of 32 random bytes one or none is beyond ASCII by a chance of one to a hundred
/// millions. This doesn't hold for what a secret decodes to, such as decimal digits that are read as hexadecimal ones.
fn is_mostly_ascii(secret: &[u8]) -> bool {
    text(secret).is_none()
        && secret.len() >= MIN_BYTES
        && secret.iter().filter(|byte| !byte.is_ascii()).count() < secret.len() / 16
}

/// Whether `bytes` begin with a type of key and its length, as the keys of SSH do.
fn is_ssh_key(bytes: &[u8]) -> bool {
    bytes.split_first_chunk::<4>().is_some_and(|(length, name)| {
        let name = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|length| name.get(..length));
        name.and_then(|name| str::from_utf8(name).ok()).is_some_and(is_ssh_type)
    })
}

/// Whether `bytes` are a sequence of DER that begins with a sequence or a number, as keys and certificates do. A long one may be
/// cut off. Random bytes are by a chance of one to eight millions.
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

/// Whether `bytes` are a point on a curve of NIST, not compressed, and so a public key. No random bytes are.
fn is_point(bytes: &[u8]) -> bool {
    [&ECDSA_P256_SHA256_FIXED, &ECDSA_P384_SHA384_FIXED, &ECDSA_P521_SHA512_FIXED]
        .into_iter()
        .any(|curve| bytes.starts_with(&[4]) && ParsedPublicKey::new(curve, bytes).is_ok())
}

/// Whether `bytes` have few different bytes, or few different steps between them, or end as they begin.
fn is_guessable(bytes: &[u8]) -> bool {
    let steps = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let is_poor = bytes.iter().collect::<HashSet<_>>().len() < MIN_DIFFERENT_BYTES
        || steps.collect::<HashSet<_>>().len() < MIN_DIFFERENT_BYTES;
    let periods = 1..=bytes.len() * 3 / 4;
    let repeats = |period: usize| bytes[period..] == bytes[..bytes.len() - period];
    bytes.len() >= MIN_BYTES / 2 && (is_poor || periods.into_iter().any(repeats))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaPublicKeyComponents,
    };
    use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const AGE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const MINISIGN: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    /// Public keys as SPKI in DER, by kind.
    fn public_keys() -> [Vec<u8>; 3] {
        let bytes = |der: PublicKeyX509Der<'_>| der.as_ref().to_vec();
        [
            bytes(RsaKeyPair::generate(KeySize::Rsa2048).unwrap().public_key().as_der().unwrap()),
            bytes(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().public_key().as_der().unwrap()),
            bytes(Ed25519KeyPair::generate().unwrap().public_key().as_der().unwrap()),
        ]
    }

    fn pem(der: &[u8]) -> String {
        let body = BASE64.encode(der);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The set that an issuer publishes, with the key in `der`.
    fn key_set(der: &[u8]) -> String {
        let end = |bytes: usize| BASE64URL_NOPAD.encode(&der[der.len() - bytes..]);
        let key = match der.len() {
            44 => format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}","kid":"1"}}"#, end(32)),
            91 => format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, &end(64)[..43], end(32)),
            _ => {
                let key = aws_lc_rs::rsa::PublicKey::from_der(der).unwrap();
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
                format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, BASE64URL_NOPAD.encode(&n), BASE64URL_NOPAD.encode(&e))
            }
        };
        format!(r#"{{"keys":[{key}]}}"#)
    }

    /// The same public thing in the encodings that tools write, one within another too.
    fn encodings(bytes: &[u8]) -> Vec<Vec<u8>> {
        let base64 = BASE64.encode(bytes);
        let wrapped: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        let wrapped = wrapped.join("\n");
        let texts = [
            BASE64URL.encode(bytes),
            BASE64URL_NOPAD.encode(bytes),
            HEXLOWER.encode(bytes),
            HEXUPPER.encode(bytes),
            BASE64.encode(base64.as_bytes()),
            HEXLOWER.encode(base64.as_bytes()),
            format!("PUBLIC_KEY={base64}"),
            format!("v=DKIM1;k=rsa;p={base64}"),
            format!("{wrapped}\n"),
            format!("{base64}\n"),
        ];
        texts.into_iter().map(String::into_bytes).chain([bytes.to_vec()]).collect()
    }

    fn assert_refused(content: &[u8]) {
        let error = secret(content).expect_err(&String::from_utf8_lossy(content));
        assert!(error.contains("HS256 needs") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_public_key_is_refused_in_every_encoding() {
        for der in public_keys() {
            let set = key_set(&der);
            let key = set.trim_start_matches(r#"{"keys":["#).trim_end_matches("]}");
            let yaml = key.trim_matches(['{', '}']).replace(',', "\n  ").replace(':', ": ").replace('"', "");
            let pem = pem(&der);
            let first_line = pem.lines().nth(1).unwrap();
            for public in [
                &pem,
                &set,
                &key.to_owned(),
                &serde_json::to_string(&set).unwrap(),
                &format!("keys:\n- {yaml}\n"),
                &format!("{{keys: [{key}]}}"),
            ] {
                encodings(public.as_bytes()).iter().for_each(|content| assert_refused(content));
            }
            encodings(&der).iter().for_each(|content| assert_refused(content));
            // The line of a long key has the head of its DER, whose length says that more follows.
            if der.len() > 256 {
                assert_refused(first_line.as_bytes());
            }
            if der.len() == 91 {
                encodings(&der[26..]).iter().for_each(|content| assert_refused(content));
            }
        }
    }

    /// Runs a command, with this as its input.
    fn output(command: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}");
        output.stdout
    }

    #[test]
    fn what_openssl_prints_of_a_public_key_is_refused() {
        for der in public_keys() {
            let pem = pem(&der);
            let mut commands = vec![
                vec!["openssl", "pkey", "-pubin", "-noout", "-text"],
                vec!["openssl", "pkey", "-pubin", "-outform", "DER"],
                vec!["openssl", "base64"],
                vec!["openssl", "base64", "-A"],
            ];
            if der.len() > 256 {
                commands.push(vec!["openssl", "rsa", "-pubin", "-noout", "-modulus"]);
            }
            for command in commands {
                assert_refused(&output(&command, pem.as_bytes()));
            }
        }
    }

    #[rstest]
    #[case::pem("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "is a key in PEM, but")]
    #[case::pem_after_a_line("\n-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "is a key in PEM, but")]
    #[case::pem_after_bag_attributes(
        "Bag Attributes\n    localKeyID: 01\n-----BEGIN CERTIFICATE-----\nMFkw\n",
        "is a key in PEM, but"
    )]
    #[case::pem_after_a_mark("\u{feff}-----BEGIN PUBLIC KEY-----\nMFkw\n", "is a key in PEM, but")]
    #[case::pem_before_a_nul(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrB\n-----END PUBLIC KEY-----\n\0",
        "is text with control characters"
    )]
    #[case::openssh("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me@host\n", "is a key of SSH, but")]
    #[case::openssh_after_a_mark("\u{feff} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKp me\n", "is a key of SSH, but")]
    #[case::openssh_after_options("restrict,pty ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTIt me\n", "is a key of SSH, but")]
    #[case::openssh_of_a_token("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5z\n", "is a key of SSH, but")]
    #[case::openssh_body(
        "AAAAB3NzaC1yc2EAAAADAQABAAABgQC7vbqajDhA5ewmvz4SFMZy\n",
        "is a key of SSH in base64 or hexadecimal, but"
    )]
    #[case::openssh_fingerprint("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8\n", "is a key of SSH, but")]
    #[case::ssh2("---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABgQC7\n", "is a key of SSH, but")]
    #[case::age(AGE, "is a public key of age, but")]
    #[case::minisign(MINISIGN, "is a public key of minisign or signify in base64 or hexadecimal, but")]
    #[case::minisign_with_its_comment(
        &format!("untrusted comment: minisign public key E7620F1842B4E81F\n{MINISIGN}\n"),
        "has several lines, as keys and certificates have, but"
    )]
    #[case::openpgp("mDMEZnHxaBYJKwYBBAHaRw8BAQdAq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ\n", "is a key of OpenPGP in base64")]
    #[case::set(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, "is JSON, such as a JSON Web Key Set, but")]
    #[case::set_after_a_mark("\u{feff}{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}\n", "is JSON, such as")]
    #[case::jwk("\n{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}\n", "is JSON, such as")]
    #[case::list_of_keys(r#"[{"kty":"RSA","n":"AQAB","e":"AQAB"}]"#, "is JSON, such as")]
    #[case::token(
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3MiLCJleHAiOjE3OTk5OTk5OTl9.q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
        "is JSON, such as a JSON Web Key Set in base64 or hexadecimal, but"
    )]
    #[case::url("https://issuer.example/.well-known/jwks.json\n", "is a URL, but")]
    #[case::packed(
        "H4sIAAAAAAAAA6tWKkktLlGyUlAqSS0uUaoFAPqXFUESAAAA\n",
        "is a packed file in base64 or hexadecimal, but"
    )]
    #[case::spaces_within("correct horse battery staple and a few words more", "has spaces, as")]
    #[case::two_lines("correct-horse-battery-staple\nand-a-few-words-more", "has several lines, as")]
    #[case::byte_order_mark("\u{feff}a-secret-of-more-than-thirty-two-bytes", "begins with a byte order mark")]
    #[case::zeros(&"0".repeat(64), "repeats a few bytes, or follows a pattern")]
    #[case::three_bytes(&"abc".repeat(20), "repeats a few bytes, or follows a pattern")]
    #[case::four_digits(&"0123".repeat(8), "repeats a few bytes, or follows a pattern")]
    #[case::sixteen_digits(&"0123456789abcdef".repeat(2), "repeats a few bytes, or follows a pattern")]
    #[case::a_word_and_again("correct-horse-battery,correct-horse-battery", "repeats a few bytes, or")]
    #[case::the_alphabet("abcdefghijklmnopqrstuvwxyz0123456789", "repeats a few bytes, or follows a pattern")]
    #[case::zeros_in_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "repeats a few bytes, or follows")]
    #[case::counting_in_hexadecimal(
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "repeats a few bytes, or follows a pattern that can be guessed in base64 or hexadecimal, but"
    )]
    #[case::short("short\n", "has a secret of 5 bytes; HS256 needs 32 or more")]
    #[case::empty("\n", "has a secret of 0 bytes")]
    fn what_others_know_or_guess_is_refused(#[case] text: &str, #[case] message: &str) {
        let error = secret(text.as_bytes()).unwrap_err();
        assert!(error.starts_with(message) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_secret_as_long_as_the_modulus_of_an_rsa_key_is_refused() {
        let mut random = [0; 128];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let longest = HEXLOWER.encode(&random);
        assert_eq!(secret(longest.as_bytes()), Ok(longest.as_bytes()));
        let error = secret(format!("{longest}0").as_bytes()).unwrap_err();
        assert!(error.starts_with("has 257 bytes, more than the 256 that a secret may have, but"), "{error}");
    }

    #[test]
    fn text_in_utf_16_is_refused() {
        let text = "\u{feff}a-secret-of-more-than-thirty-two-bytes\r\n";
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(secret(&bytes).unwrap_err().starts_with("is text with control characters, or text in UTF-16, but"));
    }

    /// As hexadecimal digits, these are bytes of which one is beyond ASCII.
    #[test]
    fn decimal_digits_that_decode_to_ascii_are_kept() {
        let digits = b"5546157627320730231952716017553715253027827246632049452471577128";
        assert_eq!(secret(digits), Ok(&digits[..]));
    }

    #[test]
    fn bytes_that_end_as_a_line_are_kept_whole() {
        let mut bytes = [0x9c; 32];
        (0..31).for_each(|index| bytes[index] = u8::try_from(index * index % 251).unwrap());
        bytes[31] = b'\n';
        assert_eq!(secret(&bytes), Ok(&bytes[..]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_random_secret_is_kept_but_for_its_line_end(
            bytes in any::<[u8; 48]>(),
            password in "[0-9A-Za-z]{40}",
            symbols in "[!-~]{40}",
            digits in "[0-9]{40}",
        ) {
            prop_assert_eq!(secret(&bytes), Ok(&bytes[..]));
            prop_assert_eq!(secret(&bytes[..32]), Ok(&bytes[..32]));
            let uuid = |bytes: &[u8]| {
                let hex = HEXLOWER.encode(bytes);
                [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
            };
            let (first, second) = (uuid(&bytes[..16]), uuid(&bytes[16..32]));
            for text in [
                HEXLOWER.encode(&bytes[..16]),
                HEXLOWER.encode(&bytes[..32]),
                HEXUPPER.encode(&bytes),
                BASE64.encode(&bytes[..24]),
                BASE64.encode(&bytes[..32]),
                BASE64.encode(&bytes),
                BASE64URL_NOPAD.encode(&bytes),
                BASE64.encode(HEXLOWER.encode(&bytes).as_bytes()),
                first.clone(),
                first.clone() + &second,
                format!("{first}-{second}"),
                password,
                symbols,
                digits,
            ] {
                for end in ["", "\n", "\r\n"] {
                    let content = format!("{text}{end}");
                    prop_assert_eq!(secret(content.as_bytes()), Ok(text.as_bytes()), "{}", text);
                }
            }
        }
    }
}
