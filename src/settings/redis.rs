//! The settings of the connection to Redis, which have to fit together.

use super::{Layers, SettingsError, parse};
use crate::store::{Access, ClientFiles, RedisUrl, WriteAcks};

/// What stands beside `redis_url` and is of no use without it.
const BESIDE_THE_URL: [&str; 5] =
    ["redis_username", "redis_password_file", "redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];
/// Why a setting is of no use without `redis_url`.
const FOR_YOUR_OWN: &str = "is for a Redis of your own, and redis_url is not set";
/// What only TLS has a use for.
const FOR_TLS: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];

impl Layers<'_> {
    /// The Redis to use, and how to be let in; none when it is to be a private one.
    pub(super) fn redis(&self) -> Result<Option<RedisUrl>, SettingsError> {
        let Some(url) = self.secret("redis_url", RedisUrl::parse)? else {
            return self.none_of(&BESIDE_THE_URL, FOR_YOUR_OWN).map(|()| None);
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

    /// How many replicas must have a visit; none of a private Redis, which has no replicas.
    pub(super) fn write_acks(&self) -> Result<WriteAcks, SettingsError> {
        let replicas = self.required("write_acks", parse::number::<0, 9>)?;
        let on_disk = self.required("write_acks_on_disk", parse::truth)?;
        if replicas > 0 && self.topmost("redis_url").is_none() {
            self.none_of(&["write_acks"], FOR_YOUR_OWN)?;
        }
        if on_disk && replicas == 0 {
            self.none_of(&["write_acks_on_disk"], "is of no use without write_acks, which says how many replicas")?;
        }
        if on_disk && self.required("redis_timeout", parse::limit)? < WriteAcks::LEAST_ANSWER_ON_DISK {
            const WHY: &str = "needs a redis_timeout of 9s or more: replicas tell of their disks once a second";
            self.none_of(&["write_acks_on_disk"], WHY)?;
        }
        Ok(WriteAcks { replicas, on_disk })
    }

    /// A client's certificate and its key.
    fn client_files(&self) -> Result<Option<ClientFiles>, SettingsError> {
        let files = self.both("redis_client_cert_file", parse::path, "redis_client_key_file", parse::path)?;
        Ok(files.map(|(cert, key)| ClientFiles { cert, key }))
    }
}
