//! Checks the token of a request against the current keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use arc_swap::ArcSwapOption;

use super::bearer::bearer_token;
use super::error::{AuthError, TokenError};
use super::jwt::{JwtConfig, JwtVerifier, is_over};
use super::keys::ApiKeys;
use super::principal::Principal;
use super::scope::Scope;
use super::usage::KeySample;
use crate::small_file::Contents;

/// Where the keys are. Without any, every request is authorized.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// The file with the digests of API keys.
    pub api_keys_file: Option<PathBuf>,
    /// The settings for JSON Web Tokens.
    pub jwt: Option<JwtConfig>,
}

impl AuthConfig {
    /// Returns the files of all keys.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.api_keys_file.iter().chain(self.jwt.as_ref().map(|jwt| &jwt.key_file)).cloned().collect()
    }
}

/// Authorizes requests: all of them if there are no keys, otherwise those with a valid token.
pub struct Authenticator {
    config: AuthConfig,
    keys: ArcSwapOption<Keys>,
    generations: AtomicU64,
}

struct Keys {
    /// The number of the load, which tells a grant by earlier keys apart.
    generation: u64,
    api: Option<Arc<ApiKeys>>,
    jwt: Option<Arc<JwtVerifier>>,
}

/// Proof that a request was authorized, and until when. A request that takes longer [renews](Authenticator::renew) its
/// grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The owner of the token. `None` without access control.
    pub principal: Option<Arc<Principal>>,
    /// The generation of the keys that accepted the token.
    generation: u64,
}

/// The number of current keys, by kind. `None` if the kind is not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCounts {
    /// API keys.
    pub api: Option<usize>,
    /// Keys that verify JSON Web Tokens.
    pub jwt: Option<usize>,
}

/// Key files that can't be used: one line that names their settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeysError(String);

impl KeysError {
    fn unreadable(setting: &'static str, path: &Path, error: &io::Error) -> Self {
        Self(format!("{setting}: failed to read {}: {error}", path.display()))
    }

    /// `why` is a predicate.
    fn invalid(setting: &'static str, path: &Path, why: &str) -> Self {
        Self(format!("{setting}: {}: {why}", path.display()))
    }
}

impl Authenticator {
    /// Loads the keys.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] if a file can't be used.
    pub fn load(config: AuthConfig) -> Result<Self, KeysError> {
        let contents = Contents::read(&config.files());
        Self::load_from(config, &contents)
    }

    /// As [`Self::load`], with `contents` of the files.
    pub(crate) fn load_from(config: AuthConfig, contents: &Contents) -> Result<Self, KeysError> {
        let is_open = config.api_keys_file.is_none() && config.jwt.is_none();
        let keys =
            Keys { generation: 0, api: load_api_keys(&config, contents)?, jwt: load_jwt_keys(&config, contents)? };
        let keys = ArcSwapOption::new((!is_open).then(|| Arc::new(keys)));
        Ok(Self { config, keys, generations: AtomicU64::new(1) })
    }

    /// Reloads the keys from `contents` of the files. Checks in progress use the previous keys.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] if a file can't be used. The previous keys of this file are kept. Those of the other file are
    /// replaced, so that a broken file never delays a revocation in the other.
    pub(crate) fn reload_from(&self, contents: &Contents) -> Result<(), KeysError> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let Some(previous) = self.keys.load_full() else { return Ok(()) };
        let (api, jwt) = (load_api_keys(&self.config, contents), load_jwt_keys(&self.config, contents));
        let errors: Vec<_> = [api.as_ref().err(), jwt.as_ref().err()].into_iter().flatten().map(|e| &*e.0).collect();
        let outcome = if errors.is_empty() { Ok(()) } else { Err(KeysError(errors.join("; "))) };
        let (mut api, mut jwt) =
            (api.unwrap_or_else(|_| previous.api.clone()), jwt.unwrap_or_else(|_| previous.jwt.clone()));
        if let (Some(api), Some(previous)) = (api.as_mut().and_then(Arc::get_mut), &previous.api) {
            api.continue_usage(previous);
        }
        if let (Some(jwt), Some(previous)) = (jwt.as_mut().and_then(Arc::get_mut), &previous.jwt) {
            jwt.continue_usage(previous);
        }
        self.keys.store(Some(Arc::new(Keys { generation, api, jwt })));
        outcome
    }

    /// Returns whether the file of API keys is valid in `contents` and has no key.
    pub(crate) fn revokes_all(&self, contents: &Contents) -> bool {
        load_api_keys(&self.config, contents).is_ok_and(|keys| keys.is_some_and(|keys| keys.len() == 0))
    }

    /// Returns whether every request is authorized.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.load().is_none()
    }

    /// Returns the number of current keys.
    #[must_use]
    pub fn key_counts(&self) -> KeyCounts {
        let keys = self.keys.load();
        let keys = keys.as_deref();
        KeyCounts {
            api: keys.and_then(|keys| keys.api.as_deref()).map(ApiKeys::len),
            jwt: keys.and_then(|keys| keys.jwt.as_deref()).map(JwtVerifier::key_count),
        }
    }

    /// Reads the counters of all current keys.
    #[must_use]
    pub fn usage(&self) -> Vec<KeySample> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Vec::new() };
        let api = keys.api.iter().flat_map(|api| api.usage());
        api.chain(keys.jwt.as_deref().map(JwtVerifier::usage)).collect()
    }

    /// Authorizes a request with these `Authorization` headers for `scope`.
    ///
    /// # Errors
    ///
    /// An [`AuthError`] if the request has no valid token with this scope.
    pub fn authorize(
        &self,
        mut authorization: impl Iterator<Item: AsRef<[u8]>>,
        scope: Scope,
    ) -> Result<Grant, AuthError> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Ok(Grant::default()) };
        let header = authorization.next().ok_or(AuthError::NoToken)?;
        let token = bearer_token(header.as_ref()).filter(|_| authorization.next().is_none());
        let token = token.ok_or(AuthError::Malformed)?;
        let principal = keys.principal(token).map_err(AuthError::NotAccepted)?;
        if !principal.scopes.contains(scope) {
            return Err(AuthError::InsufficientScope { principal, scope });
        }
        Ok(Grant { principal: Some(principal), generation: keys.generation })
    }

    /// Checks that `grant` is still valid: the token has not expired, and reloaded keys accept it. Costs two
    /// comparisons if the keys were not reloaded.
    ///
    /// # Errors
    ///
    /// An [`AuthError`] if the grant is no longer valid.
    pub fn renew<'a>(
        &self,
        grant: &mut Grant,
        authorization: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
    ) -> Result<(), AuthError> {
        if self.keys.load().as_ref().is_some_and(|keys| keys.generation != grant.generation) {
            *grant = self.authorize(authorization, scope)?;
        }
        match grant.principal.as_ref().and_then(|principal| principal.valid_until) {
            Some(last) if is_over(last) => Err(AuthError::NotAccepted(TokenError::Expired)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Keys {
    fn principal(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        match (&self.api, &self.jwt) {
            // An API key has no dots, a JSON Web Token has two.
            (_, Some(jwt)) if self.api.is_none() || token.contains('.') => jwt.principal(token).map(Arc::new),
            (Some(api), _) => api.principal(token).ok_or(TokenError::UnknownKey),
            (None, _) => unreachable!("at least one kind of key is configured"),
        }
    }
}

/// Loads the API keys, if their file is set.
fn load_api_keys(config: &AuthConfig, contents: &Contents) -> Result<Option<Arc<ApiKeys>>, KeysError> {
    const SETTING: &str = "api_keys_file";
    let Some(path) = config.api_keys_file.as_deref() else { return Ok(None) };
    let text = contents.text_of(path).map_err(|error| KeysError::unreadable(SETTING, path, &error))?;
    let keys = ApiKeys::parse(text).map_err(|why| KeysError::invalid(SETTING, path, &why))?;
    Ok(Some(Arc::new(keys)))
}

/// Loads the keys that verify JSON Web Tokens, if their file is set.
fn load_jwt_keys(config: &AuthConfig, contents: &Contents) -> Result<Option<Arc<JwtVerifier>>, KeysError> {
    const SETTING: &str = "jwt_key_file";
    let Some(config) = &config.jwt else { return Ok(None) };
    let path = &config.key_file;
    let content = contents.of(path).map_err(|error| KeysError::unreadable(SETTING, path, &error))?;
    let verifier = JwtVerifier::new(config, content).map_err(|why| KeysError::invalid(SETTING, path, &why))?;
    Ok(Some(Arc::new(verifier)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorize_allows_every_request_without_keys() {
        let authenticator = Authenticator::load(AuthConfig::default()).unwrap();
        assert!(authenticator.is_open());
        assert_eq!(authenticator.authorize(std::iter::empty::<&[u8]>(), Scope::DeleteUsers), Ok(Grant::default()));
    }
}
