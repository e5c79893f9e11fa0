//! The Redis deployment.

use super::effective::EffectiveTexts;
use super::{Settings, SettingsError};
use crate::redis::{ClientFiles, Credentials, Deployment, RedisUrl, TlsFiles, WriteAcks};
use crate::store::Partitions;

/// The settings that locate a Redis. At most one is set.
const LOCATIONS: [&str; 3] = ["redis_url", "redis_cluster", "redis_sentinel"];
/// The settings that need a location.
const NEED_LOCATION: [&str; 6] = [
    "redis_sentinel_master",
    "redis_username",
    "redis_password_file",
    "redis_ca_file",
    "redis_client_cert_file",
    "redis_client_key_file",
];
const NO_LOCATION: &str = "needs a Redis of your own; set redis_url, redis_cluster or redis_sentinel";
/// The settings that need TLS.
const NEED_TLS: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];

impl Settings {
    /// Returns the Redis to use with its credentials and certificates; `None` for the private Redis.
    #[must_use]
    pub fn deployment(&self) -> Option<Deployment> {
        let tls_files = self.redis_tls_files();
        let credentials =
            Credentials { username: self.redis_username.clone(), password_file: self.redis_password_file.clone() };
        let server = |url: RedisUrl| url.with_credentials(credentials.clone()).with_tls_files(tls_files.clone());
        if let Some(url) = &self.redis_url {
            return Some(Deployment::One(server(url.clone())));
        }
        if let Some(seeds) = &self.redis_cluster {
            return Some(Deployment::Cluster(seeds.iter().cloned().map(server).collect()));
        }
        let sentinels = self.redis_sentinel.as_ref()?;
        let sentinel = |url: &RedisUrl| url.without_database().with_tls_files(tls_files.clone());
        Some(Deployment::Sentinel {
            sentinels: sentinels.iter().map(sentinel).collect(),
            master: self.redis_sentinel_master.clone(),
            // The login in these URLs is that of the sentinels.
            servers: server(sentinels[0].without_login()),
        })
    }

    fn redis_tls_files(&self) -> TlsFiles {
        let client_files = self.redis_client_cert_file.clone().zip(self.redis_client_key_file.clone());
        let client_files = client_files.map(|(cert, key)| ClientFiles { cert, key });
        TlsFiles { ca_file: self.redis_ca_file.clone(), client_files }
    }

    /// Whether the service starts a private Redis.
    #[must_use]
    pub fn has_private_redis(&self) -> bool {
        self.redis_url.is_none() && self.redis_cluster.is_none() && self.redis_sentinel.is_none()
    }

    /// Returns the replicas that must have a visit before it is acknowledged.
    #[must_use]
    pub fn acks(&self) -> WriteAcks {
        WriteAcks { replicas: self.write_acks, on_disk: self.write_acks_on_disk }
    }

    /// Refuses settings that contradict each other or have no effect.
    pub(super) fn validate_redis(&self, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        let mut locations = LOCATIONS.into_iter().filter(|name| texts.is_set(name));
        if let (Some(location), Some(second)) = (locations.next(), locations.next()) {
            let why = format!(
                "is a second Redis: {location} is set, too; leave one of them empty (docker compose: --profile external)"
            );
            texts.reject_if_set(&[second], &why)?;
        }
        match self.deployment() {
            Some(deployment) => self.validate_deployment(&deployment, texts)?,
            None => texts.reject_if_set(&NEED_LOCATION, NO_LOCATION)?,
        }
        self.validate_write_acks(texts)
    }

    /// Refuses what contradicts `deployment`.
    fn validate_deployment(&self, deployment: &Deployment, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        let (location, url) = (deployment.setting(), deployment.server());
        if location != "redis_sentinel" {
            texts.reject_if_set(&["redis_sentinel_master"], "has no effect without redis_sentinel")?;
        }
        if url.has_username() {
            texts.reject_if_set(&["redis_username"], &format!("is a second user: {location} has one already"))?;
        }
        if url.has_password() {
            let why = format!("is a second password: {location} has one already");
            texts.reject_if_set(&["redis_password_file"], &why)?;
        }
        if !url.is_tls() {
            let why = format!("needs TLS; begin {location} with rediss://");
            texts.reject_if_set(&NEED_TLS, &why)?;
        }
        texts.require_together("redis_client_cert_file", "redis_client_key_file")?;
        if !url.has_password() && self.redis_password_file.is_none() {
            // The client would silently log in as the default user.
            const WHY: &str = "is a user without a password; set redis_password_file";
            texts.reject_if_set(&["redis_username"], WHY)?;
            if url.has_username() {
                texts.reject_if_set(&[location], WHY)?;
            }
        }
        if location == "redis_cluster" && self.partitions == Some(Partitions::ONE) {
            const WHY: &str = "is too few for redis_cluster; one partition uses one server";
            texts.reject_if_set(&["partitions"], WHY)?;
        }
        let why = format!(
            "is for the private Redis, but {location} is set; set the maxmemory of that Redis (docker compose: REDIS_MAX_MEMORY)"
        );
        texts.reject_if_set(&["redis_max_memory"], &why)
    }

    fn validate_write_acks(&self, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        if self.write_acks > 0 && self.has_private_redis() {
            texts.reject_if_set(&["write_acks"], NO_LOCATION)?;
        }
        if !self.write_acks_on_disk {
            return Ok(());
        }
        if self.write_acks == 0 {
            let why = "has no effect without write_acks, the number of replicas";
            texts.reject_if_set(&["write_acks_on_disk"], why)?;
        }
        if self.redis_timeout < WriteAcks::MIN_ANSWER_ON_DISK {
            let why = "needs a redis_timeout of at least 9s; replicas report their disks once a second";
            texts.reject_if_set(&["write_acks_on_disk"], why)?;
        }
        Ok(())
    }
}
