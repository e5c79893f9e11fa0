//! Making tokens: API keys, and JSON Web Tokens for those who share the secret of HS256.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::jwt::{JwtAlgorithm, JwtConfig, secret};
use super::keys::{ApiKeys, digest_of};
use super::principal::check_name;
use super::scope::Scope;
use crate::domain::Timestamp;

/// Why a token can't be made: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MintError(String);

/// A new API key. Not `Debug`: it is a secret.
pub struct NewKey {
    /// The key, for its principal alone.
    pub key: String,
    /// Its entry for the file of keys.
    pub entry: String,
}

/// What every key starts with, so that scanners for leaked secrets can find it.
const PREFIX: &str = "sek_";

/// Makes an API key for `name`.
///
/// # Errors
///
/// A [`MintError`] when the name won't do.
pub fn api_key(name: &str, scopes: &[Scope]) -> Result<NewKey, MintError> {
    check_name(name).map_err(MintError)?;
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| MintError("the system gives no random numbers".to_owned()))?;
    let key = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random));
    let digest = HEXLOWER.encode(&digest_of(&key));
    let scopes: Vec<_> = scopes.iter().map(Scope::to_string).collect();
    let entry = format!("[[key]]\nname = {name:?}\nsha256 = {digest:?}\nscopes = {scopes:?}\n");
    Ok(NewKey { key, entry })
}

/// Makes an API key for `name`, adds its entry to the file of keys at `path`, which is made if there is none, and gives the
/// key.
///
/// # Errors
///
/// A [`MintError`] when the file can't be read or written, or has that name already.
pub fn api_key_into(path: &Path, name: &str, scopes: &[Scope]) -> Result<String, MintError> {
    let failed = |why: String| MintError(format!("api_keys_file: {}: {why}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(format!("can't be read: {error}"))),
    };
    if ApiKeys::parse(&text).map_err(failed)?.has(name) {
        return Err(failed(format!("has a key named {name} already")));
    }
    let NewKey { key, entry } = api_key(name, scopes)?;
    let gap = if text.is_empty() || text.ends_with("\n\n") {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    // A user who may write it lets anybody in, whatever the umask says.
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{gap}{entry}").as_bytes()));
    written.map_err(|error| failed(format!("can't be written: {error}")))?;
    Ok(key)
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    scope: String,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Makes a JSON Web Token for `name` that is valid from `now` for `lifetime`, as `config` wants it.
///
/// # Errors
///
/// A [`MintError`] when the algorithm isn't HS256, whose secret is all there is to sign with, or the secret can't be read.
pub fn jwt(
    config: &JwtConfig,
    name: &str,
    scopes: &[Scope],
    lifetime: Duration,
    now: Timestamp,
) -> Result<String, MintError> {
    check_name(name).map_err(MintError)?;
    if config.algorithm != JwtAlgorithm::Hs256 {
        return Err(MintError(format!("jwt_algorithm: only the issuer can sign with {}", config.algorithm)));
    }
    let path = &config.key_file;
    let failed = |why: String| MintError(format!("jwt_key_file: {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    let key = EncodingKey::from_secret(secret(&text).map_err(failed)?);
    let iat = now.as_millis() / 1_000;
    let lifetime = i64::try_from(lifetime.as_secs()).map_err(|_| MintError("the lifetime is too long".to_owned()))?;
    let claims = Claims {
        sub: name,
        scope: scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" "),
        iat,
        exp: iat.saturating_add(lifetime),
        iss: config.issuer.as_deref(),
        aud: config.audience.as_deref(),
    };
    encode(&Header::new(config.algorithm.in_library()), &claims, &key).map_err(|error| MintError(error.to_string()))
}
