//! The settings of the connection to Redis, which have to fit together.

use super::{Layers, SettingsError, parse};
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
            username: self.optional("redis_username", parse::name)?,
            password_file: self.optional("redis_password_file", parse::path)?,
            ca_file: self.optional("redis_ca_file", parse::path)?,
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

    /// A client's certificate and its key.
    fn client_files(&self) -> Result<Option<ClientFiles>, SettingsError> {
        let files = self.both("redis_client_cert_file", parse::path, "redis_client_key_file", parse::path)?;
        Ok(files.map(|(cert, key)| ClientFiles { cert, key }))
    }
}
