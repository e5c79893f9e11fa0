//! The settings of the connection to Redis, which have to fit together.

use super::effective::EffectiveTexts;
use super::{Settings, SettingsError};
use crate::redis::{ClientFiles, Credentials, Deployment, RedisUrl, TlsFiles, WriteAcks};
use crate::store::Partitions;

/// The settings that say which servers there are. One of them is enough.
const LOCATIONS: [&str; 3] = ["redis_url", "redis_cluster", "redis_sentinel"];
/// What stands beside them and is of no use without.
const BESIDE_THE_LOCATION: [&str; 6] = [
    "redis_sentinel_master",
    "redis_username",
    "redis_password_file",
    "redis_ca_file",
    "redis_client_cert_file",
    "redis_client_key_file",
];
/// Why a setting is of no use without a location.
const FOR_YOUR_OWN: &str = "is for a Redis of your own, and none of redis_url, redis_cluster and redis_sentinel is set";
/// What only TLS has a use for.
const FOR_TLS: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];

impl Settings {
    /// The Redis to use, and how to be let in; `None` for a private one.
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
            // A user in these URLs is one of the sentinels.
            servers: server(sentinels[0].without_login()),
        })
    }

    fn redis_tls_files(&self) -> TlsFiles {
        let client_files = self.redis_client_cert_file.clone().zip(self.redis_client_key_file.clone());
        let client_files = client_files.map(|(cert, key)| ClientFiles { cert, key });
        TlsFiles { ca_file: self.redis_ca_file.clone(), client_files }
    }

    /// Whether the service starts a Redis of its own.
    #[must_use]
    pub fn has_private_redis(&self) -> bool {
        self.redis_url.is_none() && self.redis_cluster.is_none() && self.redis_sentinel.is_none()
    }

    /// How many replicas of Redis must have a visit before it is acknowledged.
    #[must_use]
    pub fn acks(&self) -> WriteAcks {
        WriteAcks { replicas: self.write_acks, on_disk: self.write_acks_on_disk }
    }

    /// Refuses settings that don't fit together.
    pub(super) fn check_redis(&self, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        let mut locations = LOCATIONS.into_iter().filter(|name| texts.is_set(name));
        if let (Some(location), Some(second)) = (locations.next(), locations.next()) {
            let why = format!(
                "is a second Redis: {location} is set, too; leave one empty (docker compose: --profile external)"
            );
            texts.reject_if_set(&[second], &why)?;
        }
        match self.deployment() {
            Some(deployment) => self.check_deployment(&deployment, texts)?,
            None => texts.reject_if_set(&BESIDE_THE_LOCATION, FOR_YOUR_OWN)?,
        }
        self.check_write_acks(texts)
    }

    /// Refuses what doesn't fit a Redis of one's own.
    fn check_deployment(&self, deployment: &Deployment, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        let (location, url) = (deployment.setting(), deployment.server());
        if location != "redis_sentinel" {
            texts.reject_if_set(&["redis_sentinel_master"], "is of no use without redis_sentinel")?;
        }
        if url.has_username() {
            texts.reject_if_set(&["redis_username"], &format!("is a second user: {location} has one already"))?;
        }
        if url.has_password() {
            let why = format!("is a second password: {location} has one already");
            texts.reject_if_set(&["redis_password_file"], &why)?;
        }
        if !url.is_tls() {
            let why = format!("is for TLS, and {location} doesn't begin with rediss://");
            texts.reject_if_set(&FOR_TLS, &why)?;
        }
        texts.require_together("redis_client_cert_file", "redis_client_key_file")?;
        if !url.has_password() && self.redis_password_file.is_none() {
            // Redis would be asked as its default user, without a word.
            const WHY: &str = "is a user without a password; name its file in redis_password_file";
            texts.reject_if_set(&["redis_username"], WHY)?;
            if url.has_username() {
                texts.reject_if_set(&[location], WHY)?;
            }
        }
        if location == "redis_cluster" && self.partitions == Some(Partitions::ONE) {
            const WHY: &str = "is too few for redis_cluster: one partition is at one server";
            texts.reject_if_set(&["partitions"], WHY)?;
        }
        let why = format!(
            "is for the private Redis, and {location} is set: set the maxmemory of that Redis (docker compose: REDIS_MAX_MEMORY)"
        );
        texts.reject_if_set(&["redis_max_memory"], &why)
    }

    fn check_write_acks(&self, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        if self.write_acks > 0 && self.has_private_redis() {
            texts.reject_if_set(&["write_acks"], FOR_YOUR_OWN)?;
        }
        if !self.write_acks_on_disk {
            return Ok(());
        }
        if self.write_acks == 0 {
            let why = "is of no use without write_acks, which says how many replicas";
            texts.reject_if_set(&["write_acks_on_disk"], why)?;
        }
        if self.redis_timeout < WriteAcks::MIN_ANSWER_ON_DISK {
            let why = "needs a redis_timeout of 9s or more: replicas tell of their disks once a second";
            texts.reject_if_set(&["write_acks_on_disk"], why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::tests::environment;

    #[rstest]
    #[case("redis://me:hunter2@host", &["redis_username"], "redis_username: \"x\" is a second user: redis_url has one already")]
    #[case("redis://me:hunter2@host", &["redis_password_file"], "redis_password_file: \"x\" is a second password: redis_url")]
    #[case("redis+unix:///s?pass=hunter2", &["redis_password_file"], "redis_password_file: \"x\" is a second password")]
    #[case("redis://host", &["redis_username"], "redis_username: \"x\" is a user without a password; name its file in redis_password_file")]
    #[case("redis://me@host", &[], "redis_url: the value is a user without a password; name its file in redis_password_file")]
    #[case("redis://host", &["redis_ca_file"], "redis_ca_file: \"x\" is for TLS, and redis_url doesn't begin with rediss://")]
    #[case("redis+unix:///s", &["redis_ca_file"], "redis_ca_file: \"x\" is for TLS, and redis_url doesn't begin")]
    #[case("redis://host", &["redis_client_cert_file", "redis_client_key_file"], "redis_client_cert_file: \"x\" is for TLS")]
    #[case("redis://host", &["redis_client_key_file"], "redis_client_key_file: \"x\" is for TLS")]
    #[case("rediss://host", &["redis_client_cert_file"], "redis_client_cert_file: \"x\" is of no use without redis_client_key_file")]
    #[case("rediss://host", &["redis_client_key_file"], "redis_client_key_file: \"x\" is of no use without redis_client_cert_file")]
    #[case("", &["redis_ca_file"], "redis_ca_file: \"x\" is for a Redis of your own, and none of redis_url, redis_cluster and redis_sentinel is set")]
    #[case("", &["redis_username"], "redis_username: \"x\" is for a Redis of your own, and none of redis_url, redis_cluster and redis_sentinel is set")]
    #[case("", &["redis_password_file"], "redis_password_file: \"x\" is for a Redis of your own, and none of redis_url, redis_cluster and redis_sentinel is set")]
    fn settings_of_redis_that_do_not_fit_together_are_named(
        #[case] url: &str,
        #[case] set: &[&str],
        #[case] message: &str,
    ) {
        let names: Vec<_> = set.iter().map(|name| format!("ESTIMATOR_{}", name.to_uppercase())).collect();
        let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        pairs.push(("ESTIMATOR_REDIS_URL", url));
        let error = environment(&pairs).unwrap_err().to_string();
        assert!(error.starts_with(message) && error.contains(" (set by ESTIMATOR_REDIS_"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    }

    #[rstest]
    #[case("redis://host", &["redis_password_file"])]
    #[case("redis://me@host", &["redis_password_file"])]
    #[case("redis://:hunter2@host", &["redis_username"])]
    #[case("redis+unix:///s", &["redis_username", "redis_password_file"])]
    #[case("rediss://host", &[])]
    #[case("rediss://host", &["redis_ca_file"])]
    #[case("rediss://me@host", &["redis_password_file", "redis_client_cert_file", "redis_client_key_file"])]
    fn settings_of_redis_that_fit_together_are_taken(#[case] url: &str, #[case] set: &[&str]) {
        let names: Vec<_> = set.iter().map(|name| format!("ESTIMATOR_{}", name.to_uppercase())).collect();
        let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        pairs.push(("ESTIMATOR_REDIS_URL", url));
        assert!(environment(&pairs).is_ok());
    }

    #[rstest]
    #[case(&[], WriteAcks::default())]
    #[case(&[("ESTIMATOR_WRITE_ACKS", "0"), ("ESTIMATOR_WRITE_ACKS_ON_DISK", "false")], WriteAcks::default())]
    #[case(
        &[("ESTIMATOR_REDIS_URL", "redis://host"), ("ESTIMATOR_WRITE_ACKS", "2")],
        WriteAcks { replicas: 2, on_disk: false }
    )]
    #[case(
        &[
            ("ESTIMATOR_REDIS_URL", "redis://host"),
            ("ESTIMATOR_WRITE_ACKS", "1"),
            ("ESTIMATOR_WRITE_ACKS_ON_DISK", "true"),
            ("ESTIMATOR_REDIS_TIMEOUT", "9s"),
        ],
        WriteAcks { replicas: 1, on_disk: true }
    )]
    fn replicas_that_must_have_a_visit_are_read(#[case] pairs: &[(&str, &str)], #[case] expected: WriteAcks) {
        assert_eq!(environment(pairs).unwrap().acks(), expected);
    }

    #[test]
    fn replicas_get_the_time_that_they_need_to_tell_of_their_disks() {
        let pairs = [
            ("ESTIMATOR_REDIS_URL", "redis://host"),
            ("ESTIMATOR_WRITE_ACKS", "1"),
            ("ESTIMATOR_WRITE_ACKS_ON_DISK", "true"),
        ];
        let error = environment(&pairs).unwrap_err().to_string();
        let expected =
            r#"write_acks_on_disk: "true" needs a redis_timeout of 9s or more: replicas tell of their disks"#;
        assert!(error.starts_with(expected) && error.ends_with("(set by ESTIMATOR_WRITE_ACKS_ON_DISK)"), "{error}");
    }

    #[rstest]
    #[case(&[("REDIS_CLUSTER", "redis://a,redis://b:7000")], "the cluster of a:6379, b:7000")]
    #[case(&[("REDIS_CLUSTER", "rediss://u:p@a, rediss://u:p@b"), ("REDIS_CA_FILE", "x")], "the cluster of a:6379 (TLS), b:6379 (TLS)")]
    #[case(&[("REDIS_SENTINEL", "redis://a:26379,redis://b:26379")], "mymaster, by the sentinels a:26379, b:26379")]
    #[case(
        &[("REDIS_SENTINEL", "redis://:p@a:26379/3"), ("REDIS_SENTINEL_MASTER", "x"), ("REDIS_PASSWORD_FILE", "x")],
        "x (database 3), by the sentinels a:26379"
    )]
    #[case(&[("REDIS_URL", "redis://a"), ("PARTITIONS", "16")], "a:6379")]
    fn servers_of_all_kinds_are_read(#[case] set: &[(&str, &str)], #[case] expected: &str) {
        assert_eq!(with(set).unwrap().deployment().unwrap().to_string(), expected);
    }

    #[rstest]
    #[case(&[("REDIS_URL", "redis://a"), ("REDIS_CLUSTER", "redis://a")], "redis_cluster: the value is a second Redis: redis_url is set, too; leave one empty")]
    #[case(&[("REDIS_CLUSTER", "redis://a"), ("REDIS_SENTINEL", "redis://a")], "redis_sentinel: the value is a second Redis: redis_cluster is set")]
    #[case(&[("REDIS_CLUSTER", "redis://a,b")], "redis_cluster: the value has a part that is not a usable Redis URL")]
    #[case(&[("REDIS_CLUSTER", "redis://a,")], "redis_cluster: the value has a part that is not a usable Redis URL")]
    #[case(&[("REDIS_CLUSTER", "redis://a/1")], "redis_cluster: the value names a database")]
    #[case(&[("REDIS_CLUSTER", "redis://a,rediss://b")], "redis_cluster: the value has URLs that differ")]
    #[case(&[("REDIS_CLUSTER", "redis://a,redis://:x@b")], "redis_cluster: the value has URLs that differ")]
    #[case(&[("REDIS_CLUSTER", "redis+unix:///s")], "redis_cluster: the value has URLs that differ")]
    #[case(&[("REDIS_CLUSTER", "redis://a"), ("PARTITIONS", "1")], "partitions: \"1\" is too few for redis_cluster")]
    #[case(&[("PARTITIONS", "3")], "partitions: \"3\" must be a power of two from 1 to 1024")]
    #[case(&[("REDIS_URL", "redis://a"), ("REDIS_SENTINEL_MASTER", "x")], "redis_sentinel_master: \"x\" is of no use")]
    #[case(&[("REDIS_SENTINEL_MASTER", "x")], "redis_sentinel_master: \"x\" is for a Redis of your own")]
    #[case(&[("REDIS_URL", "redis://a"), ("REDIS_MAX_MEMORY", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, and redis_url is")]
    #[case(&[("REDIS_CLUSTER", "redis://a"), ("REDIS_MAX_MEMORY", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, and redis_cluster is")]
    #[case(&[("REDIS_SENTINEL", "redis://a"), ("REDIS_MAX_MEMORY", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, and redis_sentinel is")]
    #[case(&[("REDIS_MAX_MEMORY", "2GiB")], "redis_max_memory: \"2GiB\" must be a size of at least 1mb, such as 512mb or 2gb")]
    #[case(&[("REDIS_SENTINEL", "redis://a,redis://b/1")], "redis_sentinel: the value has URLs that differ")]
    #[case(&[("REDIS_CLUSTER", "redis://a"), ("REDIS_CA_FILE", "x")], "redis_ca_file: \"x\" is for TLS, and redis_cluster")]
    fn servers_that_do_not_fit_together_are_named(#[case] set: &[(&str, &str)], #[case] message: &str) {
        let error = with(set).unwrap_err().to_string();
        assert!(error.starts_with(message) && error.contains(" (set by ESTIMATOR_"), "{error}");
    }

    fn with(set: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let set: Vec<_> = set.iter().map(|(name, value)| (format!("ESTIMATOR_{name}"), *value)).collect();
        environment(&set.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
    }
}
