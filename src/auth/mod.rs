//! Who may do what: bearer tokens, checked before anything else happens.
//!
//! A token is an API key, of which the service knows the SHA-256 digest, or a JSON Web Token that somebody else signed. Both
//! carry [`Scope`]s. There is no HTTP here but the text of the `Authorization` header
//! ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750), section 2.1).

mod jwt;
mod keys;
pub mod mint;
mod scope;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use self::jwt::Jwt;
pub use self::jwt::{JwtAlgorithm, JwtConfig};
use self::keys::ApiKeys;
pub use self::scope::{Scope, Scopes};

/// Where the keys are that tokens are checked with. Without any, everybody may do everything.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// The file with the digests of API keys.
    pub api_keys_file: Option<PathBuf>,
    /// How JSON Web Tokens are checked.
    pub jwt: Option<JwtConfig>,
}

/// The door: everybody may pass, or those with a token that the keys of the moment accept.
pub struct Gate {
    config: AuthConfig,
    keys: ArcSwapOption<Keys>,
    generations: AtomicU64,
}

struct Keys {
    /// Counts the loads of the files, so that a grant by earlier keys is told apart.
    generation: u64,
    api: Option<ApiKeys>,
    jwt: Option<Jwt>,
}

/// Proof that a token was accepted, and until when that holds. A request that outlives the check has it
/// [renewed](Gate::renew).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The name of the API key, or the subject of the JSON Web Token as far as it may be logged. `None` without access control.
    pub name: Option<String>,
    /// The keys that accepted the token.
    generation: u64,
    /// The last Unix second at which the token is valid. An API key doesn't expire.
    valid_until: Option<u64>,
}

/// The number of keys in force, by kind. `None` if no setting asks for the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCounts {
    /// API keys.
    pub api: Option<usize>,
    /// Keys that JSON Web Tokens are verified with.
    pub jwt: Option<usize>,
}

/// What is wrong with a file of keys: one line that names its setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {why}", path.display())]
pub struct KeysError {
    setting: &'static str,
    path: PathBuf,
    why: String,
}

/// Whom a token belongs to, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    scopes: Scopes,
    /// The last Unix second at which the token is valid.
    valid_until: Option<u64>,
}

/// Why a caller may not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("This needs a token: send the header Authorization: Bearer TOKEN.")]
    NoToken,
    /// There is something else than one bearer token.
    #[error(
        "The Authorization header must be given once, and be Bearer, a space and a token of at most {MAX_TOKEN_BYTES} bytes."
    )]
    Malformed,
    /// The token is none that we accept, for this reason.
    #[error("The token is not accepted: {0}.")]
    NotAccepted(Flaw),
    /// The token is accepted, but not for this.
    #[error("The token of {holder} doesn't have the scope {scope}.")]
    Insufficient {
        /// Whose token it is.
        holder: String,
        /// What it would need.
        scope: Scope,
    },
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is no key of ours.
    #[error("it is none of the API keys")]
    UnknownKey,
    /// It can't be read.
    #[error("it is not a JSON Web Token with the claims that are needed")]
    Unreadable,
    /// Its algorithm is not the one that was set.
    #[error("it is signed with another algorithm")]
    Algorithm,
    /// It says that it must not be accepted without an extension that we don't have.
    #[error("it has an extension that is not known here")]
    Extension,
    /// It names a key that we don't have, or none where there are several.
    #[error("it names no key that is known here")]
    KeyId,
    /// It was not signed with our key.
    #[error("its signature is not valid")]
    Signature,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    Immature,
    /// It is from somebody else.
    #[error("its issuer is not the one that is expected")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
}

/// Far more than any token needs. What is longer isn't looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

impl Denied {
    /// Whose token it was, if that is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Insufficient { holder, .. } => Some(holder),
            Self::NoToken | Self::Malformed | Self::NotAccepted(_) => None,
        }
    }

    /// What a metric calls this: a fixed word for each kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Malformed => "malformed",
            Self::NotAccepted(flaw) => flaw.kind(),
            Self::Insufficient { .. } => "insufficient_scope",
        }
    }
}

impl Flaw {
    fn kind(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::Unreadable => "unreadable",
            Self::Algorithm => "algorithm",
            Self::Extension => "extension",
            Self::KeyId => "key_id",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Immature => "immature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

impl Gate {
    /// A gate with the keys that `config` leads to.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] when one of the files can't be used.
    pub fn load(config: AuthConfig) -> Result<Self, KeysError> {
        let keys = ArcSwapOption::new(Keys::load(&config, 0)?.map(Arc::new));
        Ok(Self { config, keys, generations: AtomicU64::new(1) })
    }

    /// Reads the files again. Checks that have begun go on with the keys before.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] when one of the files can't be used; the keys before stay.
    pub fn reload(&self) -> Result<(), KeysError> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        self.keys.store(Keys::load(&self.config, generation)?.map(Arc::new));
        Ok(())
    }

    /// Whether everybody may pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.load().is_none()
    }

    /// The number of keys in force.
    #[must_use]
    pub fn key_counts(&self) -> KeyCounts {
        let keys = self.keys.load();
        let keys = keys.as_deref();
        KeyCounts {
            api: keys.and_then(|keys| keys.api.as_ref()).map(ApiKeys::len),
            jwt: keys.and_then(|keys| keys.jwt.as_ref()).map(Jwt::key_count),
        }
    }

    /// Whether a request with these `Authorization` headers may do what needs `scope`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admit<'a>(&self, mut authorization: impl Iterator<Item = &'a [u8]>, scope: Scope) -> Result<Grant, Denied> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Ok(Grant::default()) };
        let header = authorization.next().ok_or(Denied::NoToken)?;
        let token = bearer_token(header).filter(|_| authorization.next().is_none()).ok_or(Denied::Malformed)?;
        let holder = keys.holder(token).map_err(Denied::NotAccepted)?;
        if !holder.scopes.contains(scope) {
            return Err(Denied::Insufficient { holder: holder.name, scope });
        }
        Ok(Grant { name: Some(holder.name), generation: keys.generation, valid_until: holder.valid_until })
    }

    /// Checks that `grant` still holds: its token has not expired, and, if keys were read again, they accept it. Costs two
    /// comparisons unless keys were read again.
    ///
    /// # Errors
    ///
    /// Why it doesn't hold any longer.
    pub fn renew<'a>(
        &self,
        grant: &mut Grant,
        authorization: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
    ) -> Result<(), Denied> {
        if self.keys.load().as_ref().is_some_and(|keys| keys.generation != grant.generation) {
            *grant = self.admit(authorization, scope)?;
        }
        match grant.valid_until {
            Some(last) if jwt::is_over(last) => Err(Denied::NotAccepted(Flaw::Expired)),
            _ => Ok(()),
        }
    }
}

/// What a token is called whose subject is missing, or is not to be repeated.
const UNNAMED: &str = "this subject";

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Keys {
    fn load(config: &AuthConfig, generation: u64) -> Result<Option<Self>, KeysError> {
        if config.api_keys_file.is_none() && config.jwt.is_none() {
            return Ok(None);
        }
        let api = config.api_keys_file.as_deref().map(|path| {
            let failed = |why| KeysError { setting: "api_keys_file", path: path.to_owned(), why };
            let text = std::fs::read_to_string(path).map_err(|error| failed(format!("can't be read: {error}")))?;
            ApiKeys::parse(&text).map_err(failed)
        });
        let jwt = config.jwt.as_ref().map(|config| {
            let path = &config.key_file;
            let failed = |why| KeysError { setting: "jwt_key_file", path: path.clone(), why };
            let content = std::fs::read(path).map_err(|error| failed(format!("can't be read: {error}")))?;
            Jwt::new(config, &content).map_err(failed)
        });
        Ok(Some(Self { generation, api: api.transpose()?, jwt: jwt.transpose()? }))
    }

    fn holder(&self, token: &str) -> Result<Holder, Flaw> {
        match (&self.api, &self.jwt) {
            // An API key has no dots, a JSON Web Token two.
            (_, Some(jwt)) if self.api.is_none() || token.contains('.') => jwt.holder(token),
            (Some(api), _) => api.holder(token).ok_or(Flaw::UnknownKey),
            (None, _) => unreachable!("keys are of one kind at least"),
        }
    }
}

/// The token of an `Authorization` header.
fn bearer_token(header: &[u8]) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    let header = std::str::from_utf8(header).ok()?;
    let scheme = header.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME))?;
    let token = header[scheme.len()..].trim_matches(' ');
    let is_token =
        !token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then_some(token)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Bearer abc", Some("abc"))]
    #[case("bearer abc", Some("abc"))]
    #[case("BEARER  abc ", Some("abc"))]
    #[case("Bearer ", None)]
    #[case("Bearer", None)]
    #[case("Bearer a b", None)]
    #[case("Bearer a\u{e9}", None)]
    #[case("Basic dXNlcjpwYXNz", None)]
    #[case("", None)]
    fn a_bearer_token_is_read(#[case] header: &str, #[case] token: Option<&str>) {
        assert_eq!(bearer_token(header.as_bytes()), token);
    }

    #[test]
    fn the_longest_token_has_a_limit() {
        let header = |bytes| format!("Bearer {}", "x".repeat(bytes));
        assert!(bearer_token(header(MAX_TOKEN_BYTES).as_bytes()).is_some());
        assert!(bearer_token(header(MAX_TOKEN_BYTES + 1).as_bytes()).is_none());
    }

    #[test]
    fn without_keys_everybody_may_pass() {
        let gate = Gate::load(AuthConfig::default()).unwrap();
        assert!(gate.is_open());
        assert_eq!(gate.admit(std::iter::empty(), Scope::DeleteUsers), Ok(Grant::default()));
    }
}
