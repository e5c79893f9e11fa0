//! Makes tokens: API keys, and JSON Web Tokens signed with the secret of HS256.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::jwt::{JwtAlgorithm, JwtConfig, parse_secret};
use super::key_file;
use super::keys::digest_of;
use super::principal::check_name;
use super::scope::Scope;
use crate::domain::Timestamp;
use crate::small_file;

/// Why a token can't be made, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MintError(String);

/// A new API key. Not `Debug`, since it is a secret.
pub struct NewKey {
    /// The key itself, for its owner.
    pub key: String,
    /// Its entry for the key file.
    pub entry: String,
}

/// The prefix of every key, by which scanners recognize a leaked one.
const PREFIX: &str = "sek_";

/// Makes an API key for `name`.
///
/// # Errors
///
/// A [`MintError`] if the name is not valid.
pub fn api_key(name: &str, scopes: &[Scope]) -> Result<NewKey, MintError> {
    check_name(name).map_err(MintError)?;
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| MintError("failed to get random numbers from the system".to_owned()))?;
    let key = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random));
    let digest = HEXLOWER.encode(&digest_of(&key));
    let scopes: Vec<_> = scopes.iter().map(Scope::to_string).collect();
    let entry = format!("[[key]]\nname = {name:?}\nsha256 = {digest:?}\nscopes = {scopes:?}\n");
    Ok(NewKey { key, entry })
}

/// Makes an API key for `name`, appends its entry to the key file at `path`, and returns the key. Creates the file if
/// there is none.
///
/// # Errors
///
/// A [`MintError`] if the file can't be read or replaced, or has a key with this name.
pub fn api_key_into(path: &Path, name: &str, scopes: &[Scope]) -> Result<String, MintError> {
    let NewKey { key, entry } = api_key(name, scopes)?;
    key_file::add(path, name, &entry).map_err(|error| MintError(error.to_string()))?;
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

/// Makes a JSON Web Token for `name` that is valid from `now` for `lifetime` and passes the checks of `config`.
///
/// # Errors
///
/// A [`MintError`] if the algorithm is not HS256, or the secret can't be read. The service has no private key of the
/// others.
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
    let failed = |why: String| MintError(format!("jwt_key_file: {why}"));
    let content = small_file::read(path);
    let content = content.map_err(|error| failed(format!("failed to read {}: {error}", path.display())))?;
    let secret = parse_secret(&content).map_err(|why| failed(format!("{}: {why}", path.display())))?;
    let key = EncodingKey::from_secret(secret);
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
