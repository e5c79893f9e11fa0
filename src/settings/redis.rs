//! The settings of the connection to Redis, which have to fit together.

use std::path::PathBuf;

use super::{Layers, SettingsError};
use crate::store::{Access, ClientFiles, RedisUrl};

/// What stands beside `redis_url` and is of no use without it.
const BESIDE_THE_URL: [&str; 5] =
    ["redis_username", "redis_password_file", "redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];
/// What only TLS has a use for.
const FOR_TLS: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];

impl Layers<'_> {
    /// The Redis to use, and how to be let in; none when it is to be a private one.
    pub(super) fn redis(&self) -> Result<Option<RedisUrl>, SettingsError> {
        let Some(url) = self.secret("redis_url", RedisUrl::parse)? else {
            return self
                .none_of(&BESIDE_THE_URL, "is for a Redis of your own, and redis_url is not set")
                .map(|()| None);
        };
        if url.has_username() {
            self.none_of(&["redis_username"], "is a second user: redis_url has one already")?;
        }
        if url.has_password() {
            self.none_of(&["redis_password_file"], "is a second password: redis_url has one already")?;
        }
        if !url.is_tls() {
            self.none_of(&FOR_TLS, "is for TLS, and redis_url doesn't begin with rediss://")?;
        }
        let access = Access {
            username: self.optional("redis_username", parse_name)?,
            password_file: self.optional("redis_password_file", parse_file)?,
            ca_file: self.optional("redis_ca_file", parse_file)?,
            client_files: self.client_files()?,
        };
        if !url.has_password() && access.password_file.is_none() {
            // Redis would be asked as its default user, without a word.
            const WHY: &str = "is a user without a password; name its file in redis_password_file";
            self.none_of(&["redis_username"], WHY)?;
            if url.has_username() {
                return self.secret("redis_url", |_| Err(WHY.to_owned()));
            }
        }
        Ok(Some(url.with_access(access)))
    }

    /// A client's certificate and its key, both or neither.
    fn client_files(&self) -> Result<Option<ClientFiles>, SettingsError> {
        const CERT: &str = "redis_client_cert_file";
        const KEY: &str = "redis_client_key_file";
        match (self.optional(CERT, parse_file)?, self.optional(KEY, parse_file)?) {
            (Some(cert), Some(key)) => return Ok(Some(ClientFiles { cert, key })),
            (Some(_), None) => self.none_of(&[CERT], "is of no use without redis_client_key_file")?,
            (None, _) => self.none_of(&[KEY], "is of no use without redis_client_cert_file")?,
        }
        Ok(None)
    }

    /// Refuses the first of `names` that is set.
    fn none_of(&self, names: &[&str], why: &str) -> Result<(), SettingsError> {
        names.iter().try_for_each(|name| self.optional(name, |_| Err::<(), _>(why.to_owned())).map(drop))
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_file(text: &str) -> Result<PathBuf, String> {
    parse_name(text).map(PathBuf::from)
}
