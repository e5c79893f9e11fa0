use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaPublicKeyComponents,
};
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rstest::rstest;

use super::*;

const PEM: &str = "is a key in PEM, but";
const JSON: &str = "is JSON, such as a JSON Web Key Set, but";
const PREFIX: &str = "is a URL or a fingerprint, but";
const MAGIC: &str = "is a key of SSH or OpenPGP, or a packed file in base64 or hexadecimal, but";
const PLACEHOLDER: &str = "has a word that placeholders have, but";
const GUESSABLE: &str = "repeats a few bytes, or follows a pattern that can be guessed, but";

const AGE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const MINISIGN: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

/// Returns public keys as SPKI in DER: RSA, P-256 and Ed25519.
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

/// Returns the JSON Web Key Set with the key in `der`.
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

/// Returns `bytes` in the encodings that tools write, also nested.
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
    let error = parse_secret(content).expect_err(&String::from_utf8_lossy(content));
    assert!(error.contains("HS256 needs") && !error.contains('\n'), "{error}");
}

#[test]
fn parse_secret_refuses_a_public_key_in_every_encoding() {
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

/// Runs a command and returns its output.
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
fn parse_secret_refuses_the_output_of_openssl() {
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
#[case::pem("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", PEM)]
#[case::pem_after_a_line("\n-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", PEM)]
#[case::pem_after_bag_attributes("Bag Attributes\n    localKeyID: 01\n-----BEGIN CERTIFICATE-----\nMFkw\n", PEM)]
#[case::pem_after_byte_order_mark("\u{feff}-----BEGIN PUBLIC KEY-----\nMFkw\n", PEM)]
#[case::pem_before_a_nul(
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrB\n-----END PUBLIC KEY-----\n\0",
    PEM
)]
#[case::openssh("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me@host\n", FORM)]
#[case::openssh_after_byte_order_mark("\u{feff} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKp me\n", FORM)]
#[case::openssh_after_options("restrict,pty ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTIt me\n", FORM)]
#[case::openssh_of_a_token("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5z\n", FORM)]
#[case::openssh_body("AAAAB3NzaC1yc2EAAAADAQABAAABgQC7vbqajDhA5ewmvz4SFMZy\n", MAGIC)]
#[case::openssh_fingerprint("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8\n", PREFIX)]
#[case::ssh2("---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABgQC7\n", FORM)]
#[case::age(AGE, "is a public key of age, but")]
#[case::age_in_capitals(&AGE.to_uppercase(), "is a public key of age, but")]
#[case::minisign(MINISIGN, "is a public key of minisign or signify in base64 or hexadecimal, but")]
#[case::minisign_with_its_comment(
    &format!("untrusted comment: minisign public key E7620F1842B4E81F\n{MINISIGN}\n"),
    FORM
)]
#[case::openpgp("mDMEZnHxaBYJKwYBBAHaRw8BAQdAq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ\n", MAGIC)]
#[case::set(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, JSON)]
#[case::set_after_byte_order_mark("\u{feff}{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}\n", JSON)]
#[case::jwk("\n{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}\n", JSON)]
#[case::list_of_keys(r#"[{"kty":"RSA","n":"AQAB","e":"AQAB"}]"#, JSON)]
#[case::token(
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3MiLCJleHAiOjE3OTk5OTk5OTl9.q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
    "is JSON, such as a JSON Web Key Set in base64 or hexadecimal, but"
)]
#[case::url("HTTPS://issuer.example/.well-known/jwks.json\n", PREFIX)]
#[case::url_without_tls("http://issuer.example/.well-known/jwks.json\n", PREFIX)]
#[case::fingerprint_with_colons(
    "5E:B1:22:4A:7C:90:D3:06:F8:1B:6E:A5:39:C7:50:2D:94:E3:0F:68:BA:17:DC:41:8E:F2:73:A9:05:CB:36:9D",
    "is a fingerprint, but"
)]
#[case::jwt_io("a-string-secret-at-least-256-bits-long", PLACEHOLDER)]
#[case::supabase("super-secret-jwt-token-with-at-least-32-characters-long", PLACEHOLDER)]
#[case::to_be_changed("ThisKeyMustBeChangedBeforeTheRelease", PLACEHOLDER)]
#[case::placeholder_in_base64(
    "bXktdmVyeS1sb25nLXBhc3N3b3JkLWZvci10ZXN0cw==",
    "has a word that placeholders have in base64 or hexadecimal, but"
)]
#[case::packed("H4sIAAAAAAAAA6tWKkktLlGyUlAqSS0uUaoFAPqXFUESAAAA\n", MAGIC)]
#[case::spaces("correct horse battery staple and a few words more", FORM)]
#[case::two_lines("correct-horse-battery-staple\nand-a-few-words-more", FORM)]
#[case::byte_order_mark("\u{feff}tVp2c9Qx7LmR4sKd8wZy3nHb6fGj5aEu", FORM)]
#[case::umlauts("tVp2c9Qx7LmR4sKd8wZy3nHb6fGj5aEü", FORM)]
#[case::zeros(&"0".repeat(64), GUESSABLE)]
#[case::three_bytes(&"abc".repeat(20), GUESSABLE)]
#[case::four_digits(&"0123".repeat(8), GUESSABLE)]
#[case::four_digits_and_one_more(&("0123".repeat(8) + "1"), GUESSABLE)]
#[case::zeros_and_a_few_others(&("0".repeat(32) + "abcdef"), GUESSABLE)]
#[case::sixteen_digits(&"0123456789abcdef".repeat(2), GUESSABLE)]
#[case::word_twice("correct-horse-battery,correct-horse-battery", GUESSABLE)]
#[case::alphabet("abcdefghijklmnopqrstuvwxyz0123456789", GUESSABLE)]
#[case::zeros_in_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", GUESSABLE)]
#[case::counting_in_base64(
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "repeats a few bytes, or follows a pattern that can be guessed in base64 or hexadecimal, but"
)]
#[case::counting_in_hexadecimal("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", GUESSABLE)]
#[case::short("short\n", "has a secret of 5 bytes; HS256 needs 32 or more")]
#[case::empty("\n", "has a secret of 0 bytes")]
fn parse_secret_refuses_public_and_guessable_text(#[case] text: &str, #[case] message: &str) {
    let error = parse_secret(text.as_bytes()).unwrap_err();
    assert!(error.starts_with(message) && !error.contains('\n'), "{error}");
}

#[test]
fn parse_secret_refuses_the_modulus_of_an_rsa_key() {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let modulus = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key()).n;
    let error = parse_secret(&modulus).unwrap_err();
    assert!(error.starts_with("has 256 bytes, more than the 255 that a secret may have, but"), "{error}");
    assert_eq!(parse_secret(&modulus[1..]), Ok(&modulus[1..]));
}

#[test]
fn parse_secret_refuses_utf_16() {
    let text = "\u{feff}tVp2c9Qx7LmR4sKd8wZy3nHb6fGj5aEu\r\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(parse_secret(&bytes).unwrap_err().starts_with("has spaces, several lines or characters beyond ASCII, but"));
}

/// Read as hexadecimal, the digits have one byte beyond ASCII.
#[test]
fn parse_secret_keeps_decimal_digits_that_decode_to_ascii() {
    let digits = b"5546157627320730231952716017553715253027827246632049452471577128";
    assert_eq!(parse_secret(digits), Ok(&digits[..]));
}

#[test]
fn parse_secret_keeps_bytes_that_end_with_a_line_feed() {
    let mut bytes = [0x9c; 32];
    (0..31).for_each(|index| bytes[index] = u8::try_from(index * index % 251).unwrap());
    bytes[31] = b'\n';
    assert_eq!(parse_secret(&bytes), Ok(&bytes[..]));
}

// One in a million random texts is refused, since it begins as a public key does. So each run has the same cases.
proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn parse_secret_keeps_random_secrets_without_the_line_end(
        bytes in any::<[u8; 48]>(),
        password in "[0-9A-Za-z]{40}",
        symbols in "[!-~]{40}",
        digits in "[0-9]{40}",
    ) {
        prop_assert_eq!(parse_secret(&bytes), Ok(&bytes[..]));
        prop_assert_eq!(parse_secret(&bytes[..32]), Ok(&bytes[..32]));
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
                prop_assert_eq!(parse_secret(content.as_bytes()), Ok(text.as_bytes()), "{}", text);
            }
        }
    }
}
