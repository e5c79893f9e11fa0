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
    api: Option<ApiKeys>,
    jwt: Option<JwtVerifier>,
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

/// A key file that can't be used: one line that names its setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct KeysError {
    setting: &'static str,
    /// The path and the mistake.
    why: String,
}

impl KeysError {
    fn unreadable(setting: &'static str, path: &Path, error: &io::Error) -> Self {
        Self { setting, why: format!("failed to read {}: {error}", path.display()) }
    }

    /// `why` is a predicate.
    fn invalid(setting: &'static str, path: &Path, why: &str) -> Self {
        Self { setting, why: format!("{}: {why}", path.display()) }
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
        let keys = ArcSwapOption::new(Keys::load(&config, contents, 0, None)?.map(Arc::new));
        Ok(Self { config, keys, generations: AtomicU64::new(1) })
    }

    /// Reloads the keys from `contents` of the files. Checks in progress use the previous keys.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] if a file can't be used. The previous keys are kept.
    pub(crate) fn reload_from(&self, contents: &Contents) -> Result<(), KeysError> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let previous = self.keys.load();
        self.keys.store(Keys::load(&self.config, contents, generation, previous.as_deref())?.map(Arc::new));
        Ok(())
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
            api: keys.and_then(|keys| keys.api.as_ref()).map(ApiKeys::len),
            jwt: keys.and_then(|keys| keys.jwt.as_ref()).map(JwtVerifier::key_count),
        }
    }

    /// Reads the counters of all current keys.
    #[must_use]
    pub fn usage(&self) -> Vec<KeySample> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Vec::new() };
        let api = keys.api.iter().flat_map(ApiKeys::usage);
        api.chain(keys.jwt.as_ref().map(JwtVerifier::usage)).collect()
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
    fn load(
        config: &AuthConfig,
        contents: &Contents,
        generation: u64,
        previous: Option<&Self>,
    ) -> Result<Option<Self>, KeysError> {
        if config.api_keys_file.is_none() && config.jwt.is_none() {
            return Ok(None);
        }
        let api = config.api_keys_file.as_deref().map(|path| {
            const SETTING: &str = "api_keys_file";
            let text = contents.text_of(path).map_err(|error| KeysError::unreadable(SETTING, path, &error))?;
            ApiKeys::parse(text).map_err(|why| KeysError::invalid(SETTING, path, &why))
        });
        let jwt = config.jwt.as_ref().map(|config| {
            const SETTING: &str = "jwt_key_file";
            let path = &config.key_file;
            let content = contents.of(path).map_err(|error| KeysError::unreadable(SETTING, path, &error))?;
            JwtVerifier::new(config, content).map_err(|why| KeysError::invalid(SETTING, path, &why))
        });
        let (mut api, mut jwt) = (api.transpose()?, jwt.transpose()?);
        if let (Some(api), Some(previous)) = (&mut api, previous.and_then(|keys| keys.api.as_ref())) {
            api.continue_usage(previous);
        }
        if let (Some(jwt), Some(previous)) = (&mut jwt, previous.and_then(|keys| keys.jwt.as_ref())) {
            jwt.continue_usage(previous);
        }
        Ok(Some(Self { generation, api, jwt }))
    }

    fn principal(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        match (&self.api, &self.jwt) {
            // An API key has no dots, a JSON Web Token has two.
            (_, Some(jwt)) if self.api.is_none() || token.contains('.') => jwt.principal(token).map(Arc::new),
            (Some(api), _) => api.principal(token).ok_or(TokenError::UnknownKey),
            (None, _) => unreachable!("at least one kind of key is configured"),
        }
    }
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
