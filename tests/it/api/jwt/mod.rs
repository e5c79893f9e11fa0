//! JSON Web Tokens: which are accepted, and why others are rejected.

use std::panic::Location;
use std::path::PathBuf;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rstest::rstest;
use segment_estimator::config::RawSettings;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, Upload, binary, eventually, problem, refusal, run, settings, settings_with};

/// Issuer that signs tokens.
struct Issuer {
    algorithm: Algorithm,
    signing: EncodingKey,
    /// The content of the service's key file.
    checking: String,
    /// The private key in PEM, which must not be in the file. Empty for a secret.
    private: String,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

impl Issuer {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => {
                let secret = "b8c1f0f7e2a94d6d8f3b5a7c9e1d2f40";
                Self {
                    algorithm,
                    signing: EncodingKey::from_secret(secret.as_bytes()),
                    checking: format!("{secret}\n"),
                    private: String::new(),
                }
            }
            Algorithm::RS256 => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
                let private: Pkcs8V1Der = pair.as_der().unwrap();
                let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
                let private = pem("PRIVATE KEY", private.as_ref());
                let signing = EncodingKey::from_rsa_pem(private.as_bytes()).unwrap();
                Self { algorithm, signing, checking: pem("PUBLIC KEY", public.as_ref()), private }
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let private = pair.to_pkcs8v1().unwrap();
                let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
                let private = pem("PRIVATE KEY", private.as_ref());
                let signing = EncodingKey::from_ec_pem(private.as_bytes()).unwrap();
                Self { algorithm, signing, checking: pem("PUBLIC KEY", public.as_ref()), private }
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let private = pair.to_pkcs8v1().unwrap();
                let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
                let private = pem("PRIVATE KEY", private.as_ref());
                let signing = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
                Self { algorithm, signing, checking: pem("PUBLIC KEY", public.as_ref()), private }
            }
            other => unreachable!("{other:?} can't be set"),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.signing).unwrap()
    }

    fn sign_as(&self, key_id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.signing).unwrap()
    }

    /// Returns the public key as a member of a key set.
    fn jwk(&self, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

/// File with the service's key, and the settings that name it.
struct KeyFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl KeyFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        Self { path, _folder: folder }
    }

    fn settings(&self, algorithm: Algorithm) -> RawSettings {
        settings([("jwt_algorithm", &format!("{algorithm:?}")), ("jwt_key_file", &self.path.display().to_string())])
    }
}

fn seconds_from_now(seconds: i64) -> i64 {
    Timestamp::now().as_millis() / 1_000 + seconds
}

/// Returns the claims of a valid token with `changes`. `null` removes a claim.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "sub": "uss", "exp": seconds_from_now(600), "scope": "segments:read other:scope" });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

async fn get_count(app: &TestApp, token: &str) -> reqwest::Response {
    app.request("GET", "/segments/sports/count").bearer_auth(token).send().await.unwrap()
}

/// Asserts that a token is rejected for this reason.
#[track_caller]
fn assert_rejected(app: &TestApp, token: &str, reason: &str) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let response = get_count(app, token).await;
        assert_eq!(response.status(), 401, "{caller}: {token}");
        let document = problem(response, 401, "unauthorized").await;
        assert_eq!(document["detail"], format!("The token is not accepted: {reason}."), "{caller}: {token}");
    }
}

const UNREADABLE: &str = "it is not a JSON Web Token with the required claims";
const SIGNATURE: &str = "its signature is not valid";
const OTHER_ALGORITHM: &str = "it is signed with another algorithm";

#[rstest]
#[case::hs256(Algorithm::HS256)]
#[case::rs256(Algorithm::RS256)]
#[case::es256(Algorithm::ES256)]
#[case::eddsa(Algorithm::EdDSA)]
#[tokio::test]
async fn token_of_the_configured_algorithm_is_accepted(#[case] algorithm: Algorithm) {
    let (redis, issuer) = (Redis::start(), Issuer::new(algorithm));
    let key = KeyFile::new(&issuer.checking);
    let app = TestApp::spawn_with(&redis, key.settings(algorithm)).await;
    let token = issuer.sign(&claims(&json!({})));
    assert_eq!(get_count(&app, &token).await.status(), 200);

    let other = match algorithm {
        Algorithm::HS256 => Issuer { signing: EncodingKey::from_secret(&[7; 32]), ..Issuer::new(algorithm) },
        algorithm => Issuer::new(algorithm),
    };
    assert_rejected(&app, &other.sign(&claims(&json!({}))), SIGNATURE).await;
}

#[tokio::test]
async fn token_claims_are_all_checked() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::HS256));
    let key = KeyFile::new(&issuer.checking);
    let settings = settings_with(
        key.settings(Algorithm::HS256),
        [("jwt_issuer", "https://issuer"), ("jwt_audience", "estimator"), ("jwt_leeway", "30s")],
    );
    let app = TestApp::spawn_with(&redis, settings).await;
    let sign = |changes: Value| {
        let mut all = json!({ "iss": "https://issuer", "aud": "estimator" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        issuer.sign(&claims(&all))
    };

    for accepted in [
        json!({}),
        json!({ "aud": ["other", "estimator"] }),
        json!({ "exp": seconds_from_now(-10) }),
        json!({ "nbf": seconds_from_now(10) }),
        json!({ "scope": null, "scp": ["segments:read"] }),
        json!({ "sub": null }),
    ] {
        assert_eq!(get_count(&app, &sign(accepted.clone())).await.status(), 200, "{accepted}");
    }
    let (issuer_is_other, audience_is_other) = ("its issuer is not the expected one", "it is for another audience");
    for (changes, reason) in [
        (json!({ "exp": seconds_from_now(-100) }), "it has expired"),
        // Within the default leeway of the library.
        (json!({ "exp": seconds_from_now(-45) }), "it has expired"),
        (json!({ "exp": null }), UNREADABLE),
        (json!({ "exp": seconds_from_now(600).to_string() }), UNREADABLE),
        (json!({ "exp": -1 }), UNREADABLE),
        (json!({ "nbf": seconds_from_now(100) }), "it is not valid yet"),
        (json!({ "nbf": seconds_from_now(45) }), "it is not valid yet"),
        (json!({ "nbf": "0" }), UNREADABLE),
        (json!({ "iss": "https://other" }), issuer_is_other),
        (json!({ "iss": null }), issuer_is_other),
        (json!({ "aud": "other" }), audience_is_other),
        (json!({ "aud": ["other"] }), audience_is_other),
        (json!({ "aud": null }), audience_is_other),
        (json!({ "aud": 7 }), UNREADABLE),
        (json!({ "aud": ["estimator", 7] }), UNREADABLE),
        (json!({ "aud": { "estimator": true } }), UNREADABLE),
        (json!({ "iss": ["https://issuer"] }), UNREADABLE),
        (json!({ "iss": { "https://issuer": true } }), UNREADABLE),
        (json!({ "sub": 7 }), UNREADABLE),
    ] {
        assert_rejected(&app, &sign(changes), reason).await;
    }
    for scopes in [json!({ "scope": null }), json!({ "scope": "segments:write" }), json!({ "scope": "segments:reads" })]
    {
        problem(get_count(&app, &sign(scopes)).await, 403, "insufficient-scope").await;
    }
    // The subject may be an e-mail address, which must not get into logs.
    for subject in ["a \"strange\" name", "user@example.com"] {
        let token = sign(json!({ "sub": subject, "scope": "segments:write" }));
        let document = problem(get_count(&app, &token).await, 403, "insufficient-scope").await;
        assert_eq!(document["detail"], "The token of this subject doesn't have the scope segments:read.");
    }
}

#[tokio::test]
async fn token_with_an_audience_is_rejected_without_a_configured_one() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::HS256));
    let key = KeyFile::new(&issuer.checking);
    let app = TestApp::spawn_with(&redis, key.settings(Algorithm::HS256)).await;
    for audience in [json!("other"), json!(["other"]), json!([])] {
        assert_rejected(&app, &issuer.sign(&claims(&json!({ "aud": audience }))), "it is for another audience").await;
    }
    // RFC 7519, sections 4.1.1 and 4.1.3: an audience is a string or an array of strings, an issuer a string.
    for changes in [
        json!({ "aud": 7 }),
        json!({ "aud": {} }),
        json!({ "aud": true }),
        json!({ "aud": [7] }),
        json!({ "iss": 7 }),
        json!({ "iss": ["us"] }),
        json!({ "iss": {} }),
    ] {
        assert_rejected(&app, &issuer.sign(&claims(&changes)), UNREADABLE).await;
    }
}

#[tokio::test]
async fn stream_ends_when_its_token_expires() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::HS256));
    let key = KeyFile::new(&issuer.checking);
    let settings = settings_with(key.settings(Algorithm::HS256), [("jwt_leeway", "0s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let sign = |seconds| {
        issuer.sign(&claims(&json!({ "exp": seconds_from_now(seconds), "scope": "segments:read segments:write" })))
    };
    let (brief, lasting) = (sign(2), sign(600));
    let line = |user: &str| format!("{{\"user_id\":{user:?},\"segment\":\"sports\"}}\n");
    let mut streams = Vec::new();
    for token in [&brief, &lasting] {
        let mut stream = Upload::begin_with_token(app.address, token).await;
        stream.send(line("before").as_bytes()).await;
        streams.push(stream);
    }
    eventually("the first line is written", async || redis.call::<u64>(&["ZCARD", "segment:sports"]) == 1).await;
    eventually("the token has expired", async || get_count(&app, &brief).await.status() == 401).await;

    let [mut brief, mut lasting] = streams.try_into().ok().unwrap();
    brief.send(line("after").as_bytes()).await;
    let (status, document) = brief.answer().await;
    assert_eq!((status, &document["type"]), (401, &json!("urn:segment-estimator:problem:unauthorized")), "{document}");
    assert_eq!(document["detail"], "The token is not accepted: it has expired.");
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(1), &json!(1)), "{document}");
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 1);
    lasting.send(line("after").as_bytes()).await;
    assert_eq!(lasting.end().await.0, 200);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 2);
}

#[tokio::test]
async fn token_without_a_valid_signature_is_rejected() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::RS256));
    let key = KeyFile::new(&issuer.checking);
    let app = TestApp::spawn_with(&redis, key.settings(Algorithm::RS256)).await;
    let good = issuer.sign(&claims(&json!({})));
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let payload = part(&claims(&json!({})));

    for name in ["none", "None", "NONE", ""] {
        let header = part(&json!({ "alg": name, "typ": "JWT" }));
        for token in [format!("{header}.{payload}."), format!("{header}.{payload}.AAAA")] {
            assert_rejected(&app, &token, UNREADABLE).await;
        }
    }
    // The public key as the secret of an HMAC.
    let public = EncodingKey::from_secret(issuer.checking.as_bytes());
    let confused = encode(&Header::new(Algorithm::HS256), &claims(&json!({})), &public).unwrap();
    assert_rejected(&app, &confused, OTHER_ALGORITHM).await;
    for other in [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA] {
        assert_rejected(&app, &Issuer::new(other).sign(&claims(&json!({}))), OTHER_ALGORITHM).await;
    }

    // A critical extension (RFC 7515, section 4.1.11).
    for crit in [json!(["b64"]), json!([])] {
        let extended = Header { crit: serde_json::from_value(crit).unwrap(), ..Header::new(Algorithm::RS256) };
        let extended = encode(&extended, &claims(&json!({})), &issuer.signing).unwrap();
        assert_rejected(&app, &extended, "it requires an extension that is not supported").await;
    }

    // Truncated, altered, and malformed tokens.
    let (head, signature) = good.rsplit_once('.').unwrap();
    let scopes = part(&claims(&json!({ "scope": "segments:read segments:write" })));
    let altered = format!("{}.{scopes}.{signature}", head.split('.').next().unwrap());
    assert_rejected(&app, &altered, SIGNATURE).await;
    for length in (1..good.len()).step_by(7) {
        problem(get_count(&app, &good[..length]).await, 401, "unauthorized").await;
    }
    assert_rejected(&app, &format!("{head}."), SIGNATURE).await;
    for token in [head, "a.b.c", "..", "a.b.c.d", &format!("{good}.x")] {
        assert_rejected(&app, token, UNREADABLE).await;
    }
    let oversized = issuer.sign(&claims(&json!({ "filler": "x".repeat(9_000) })));
    problem(get_count(&app, &oversized).await, 401, "unauthorized").await;
    assert_eq!(get_count(&app, &good).await.status(), 200);
}

#[tokio::test]
async fn token_is_checked_by_the_key_of_its_id() {
    let (redis, one, two) = (Redis::start(), Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::ES256));
    let rsa = Issuer::new(Algorithm::RS256);
    let set = json!({ "keys": [one.jwk("one"), rsa.jwk("rsa"), two.jwk("two")] }).to_string();
    let app = TestApp::spawn_with(&redis, KeyFile::new(&set).settings(Algorithm::ES256)).await;
    let claims = claims(&json!({}));

    assert_eq!(get_count(&app, &one.sign_as(Some("one"), &claims)).await.status(), 200);
    assert_eq!(get_count(&app, &two.sign_as(Some("two"), &claims)).await.status(), 200);
    assert_rejected(&app, &two.sign_as(Some("one"), &claims), SIGNATURE).await;
    let no_key = "it names no known key";
    for id in [None, Some("three"), Some("rsa")] {
        assert_rejected(&app, &one.sign_as(id, &claims), no_key).await;
    }
}

#[tokio::test]
async fn token_and_api_key_work_side_by_side() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::HS256));
    let jwt = KeyFile::new(&issuer.checking);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let arguments = ["token", "--name", "analyst", "--scope", "segments:read", "--api-keys-file"];
    let output = run(binary(folder.path()).args(arguments).arg(&keys));
    let key = String::from_utf8(output.stdout).unwrap();

    let settings = settings_with(jwt.settings(Algorithm::HS256), [("api_keys_file", &keys.display().to_string())]);
    let app = TestApp::spawn_with(&redis, settings).await;
    assert_eq!(get_count(&app, key.trim_end()).await.status(), 200);
    assert_eq!(get_count(&app, &issuer.sign(&claims(&json!({})))).await.status(), 200);
    assert_rejected(&app, "sek_guessed", "it matches no API key").await;
}

#[tokio::test]
async fn token_command_signs_with_the_shared_secret() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::HS256));
    let key = KeyFile::new(&issuer.checking);
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(["token", "--jwt", "--name", "analyst", "--scope", "segments:read", "--lifetime", "1h"]);
    command.args(["--jwt-algorithm", "HS256", "--jwt-audience", "estimator", "--jwt-issuer", "us", "--jwt-key-file"]);
    let output = run(command.arg(&key.path));
    let token = String::from_utf8(output.stdout).unwrap();

    let settings = settings_with(key.settings(Algorithm::HS256), [("jwt_audience", "estimator"), ("jwt_issuer", "us")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    assert_eq!(get_count(&app, token.trim_end()).await.status(), 200);
}

#[test]
fn start_refuses_a_key_file_that_does_not_suit_the_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384: PublicKeyX509Der = p384.public_key().as_der().unwrap();
    let p384 = pem("PUBLIC KEY", p384.as_ref());
    let (rsa, es, ed) = (Issuer::new(Algorithm::RS256), Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::EdDSA));
    let set = |key: &Value| json!({ "keys": [key] }).to_string();
    let (rsa_set, es_set) = (set(&rsa.jwk("rsa")), set(&es.jwk("es")));
    let changed = |jwk: &Value, name: &str, value: &str| {
        let mut jwk = jwk.clone();
        jwk[name] = json!(value);
        set(&jwk)
    };
    let private_set = changed(&rsa.jwk("rsa"), "d", "AQAB");
    let off_the_curve = changed(&es.jwk("es"), "x", &BASE64URL_NOPAD.encode(&[7; 32]));
    let padded = changed(&rsa.jwk("rsa"), "n", &BASE64URL_NOPAD.encode(&[&[0], &[7; 256][..]].concat()));
    let few_bits = changed(&rsa.jwk("rsa"), "n", &BASE64URL_NOPAD.encode(&[0xff; 128]));
    let small = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/api/jwt/rsa1024.pem")).unwrap();
    let off_the_curve_pem = {
        let good: PublicKeyX509Der =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().public_key().as_der().unwrap();
        let mut bytes = good.as_ref().to_vec();
        let last = bytes.len() - 32;
        bytes[last..].fill(7);
        pem("PUBLIC KEY", &bytes)
    };
    let after_byte_order_mark = format!("\u{feff}{}", rsa.checking);
    let secret_set = json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }).to_string();
    for (algorithm, text, message) in [
        ("HS256", "short\n", "has a secret of 5 bytes; HS256 needs 32 or more"),
        ("HS256", rsa.checking.as_str(), "is a key in PEM, but HS256 needs a secret"),
        ("HS256", after_byte_order_mark.as_str(), "is a key in PEM, but HS256 needs a secret"),
        ("HS256", rsa_set.as_str(), "is JSON, such as a JSON Web Key Set, but HS256 needs a secret"),
        ("RS256", ed.checking.as_str(), "is not an RSA public key in PEM"),
        ("RS256", "nonsense", "is not an RSA public key in PEM"),
        ("RS256", rsa.private.as_str(), "is a private key, which only the issuer may have"),
        ("ES256", es.private.as_str(), "is a private key, which only the issuer may have"),
        ("EdDSA", ed.private.as_str(), "is a private key, which only the issuer may have"),
        ("RS256", private_set.as_str(), "has a private key (`d`), which only the issuer may have"),
        ("RS256", small.as_str(), "is not an RSA public key in PEM that can be used: it has 1024 bits"),
        (
            "RS256",
            few_bits.as_str(),
            "has no key for RS256 that can be used: it has 1024 bits; RS256 needs 2048 to 8192",
        ),
        ("RS256", padded.as_str(), "has no key for RS256 that can be used: its numbers are no RSA key"),
        ("ES256", p384.as_str(), "is not a public key on the curve P-256 in PEM"),
        ("ES256", off_the_curve_pem.as_str(), "that can be used: it is no point on the curve P-256"),
        ("ES256", off_the_curve.as_str(), "has no key for ES256 that can be used: it is no point on the curve P-256"),
        ("ES256", rsa_set.as_str(), "has no key for ES256"),
        ("RS256", es_set.as_str(), "has no key for RS256"),
        ("RS256", secret_set.as_str(), "has no key for RS256"),
        ("EdDSA", "{", "is not a JSON Web Key Set"),
    ] {
        let key = KeyFile::new(text);
        let arguments = ["--jwt-algorithm", algorithm, "--jwt-key-file"];
        let message_seen = refusal(binary(folder.path()).args(arguments).arg(&key.path));
        assert!(message_seen.contains("jwt_key_file: ") && message_seen.contains(message), "{message}: {message_seen}");
    }
}

#[tokio::test]
async fn start_skips_unusable_keys_of_a_set() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::RS256));
    let mut short = issuer.jwk("short");
    short["n"] = json!(BASE64URL_NOPAD.encode(&[0xff; 128]));
    let mut broken = issuer.jwk("broken");
    broken["n"] = json!("not base64!");
    let set = json!({ "keys": [short, broken, issuer.jwk("good")] }).to_string();
    let key = KeyFile::new(&set);
    let app = TestApp::spawn_with(&redis, key.settings(Algorithm::RS256)).await;
    assert_eq!(get_count(&app, &issuer.sign_as(Some("good"), &claims(&json!({})))).await.status(), 200);
    let short = issuer.sign_as(Some("short"), &claims(&json!({})));
    assert_rejected(&app, &short, "it names no known key").await;
}

#[tokio::test]
async fn start_takes_a_public_key_after_a_byte_order_mark() {
    let (redis, issuer) = (Redis::start(), Issuer::new(Algorithm::ES256));
    for text in [issuer.checking.clone(), json!({ "keys": [issuer.jwk("es")] }).to_string()] {
        let key = KeyFile::new(&format!("\u{feff}{text}"));
        let app = TestApp::spawn_with(&redis, key.settings(Algorithm::ES256)).await;
        assert_eq!(get_count(&app, &issuer.sign_as(Some("es"), &claims(&json!({})))).await.status(), 200);
    }
}
