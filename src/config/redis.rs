//! The settings of the connection to Redis, which have to fit together.

use super::{Layers, SettingsError, parse};
use crate::embedded_redis::MaxMemory;
use crate::redis::{ClientFiles, Credentials, Deployment, RedisUrl, TlsFiles, WriteAcks};
use crate::store::Partitions;

/// The settings that say which servers there are. One of them is enough.
const PLACES: [&str; 3] = ["redis_url", "redis_cluster", "redis_sentinel"];
/// What stands beside them and is of no use without.
const BESIDE_THE_URL: [&str; 6] = [
    "redis_sentinel_master",
    "redis_username",
    "redis_password_file",
    "redis_ca_file",
    "redis_client_cert_file",
    "redis_client_key_file",
];
/// Why a setting is of no use without a place.
const FOR_YOUR_OWN: &str = "is for a Redis of your own, and none of redis_url, redis_cluster and redis_sentinel is set";
/// What only TLS has a use for.
const FOR_TLS: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];
/// What sentinels call a primary if nobody says otherwise, in their own example.
const DEFAULT_MASTER: &str = "mymaster";

impl Layers<'_> {
    /// The Redis to use, and how to be let in; none when it is to be a private one.
    pub(super) fn redis(&self) -> Result<Option<Deployment>, SettingsError> {
        let mut set = PLACES.into_iter().filter(|name| self.topmost(name).is_some());
        let Some(place) = set.next() else {
            return self.none_of(&BESIDE_THE_URL, FOR_YOUR_OWN).map(|()| None);
        };
        if let Some(second) = set.next() {
            let why =
                format!("is a second Redis: {place} is set, too; leave one empty (docker compose: --profile external)");
            self.secret(second, |_| Err::<(), _>(why.clone()))?;
        }
        if place != "redis_sentinel" {
            self.none_of(&["redis_sentinel_master"], "is of no use without redis_sentinel")?;
        }
        match place {
            "redis_url" => self.secret(place, RedisUrl::parse)?.map(|url| self.one(url)).transpose(),
            "redis_cluster" => self.secret(place, urls)?.map(|seeds| self.cluster(seeds)).transpose(),
            _ => self.secret(place, urls)?.map(|sentinels| self.sentinel(sentinels)).transpose(),
        }
    }

    /// How many partitions there must be.
    pub(super) fn partitions(&self) -> Result<Option<Partitions>, SettingsError> {
        let partitions = self.optional("partitions", Partitions::parse)?;
        if partitions == Some(Partitions::ONE) && self.topmost("redis_cluster").is_some() {
            self.none_of(&["partitions"], "is too few for redis_cluster: one partition is at one server")?;
        }
        Ok(partitions)
    }

    /// How many replicas must have a visit; none of a private Redis, which has no replicas.
    pub(super) fn write_acks(&self) -> Result<WriteAcks, SettingsError> {
        let replicas = self.required("write_acks", parse::number::<0, 9>)?;
        let on_disk = self.required("write_acks_on_disk", parse::truth)?;
        if replicas > 0 && PLACES.iter().all(|name| self.topmost(name).is_none()) {
            self.none_of(&["write_acks"], FOR_YOUR_OWN)?;
        }
        if on_disk && replicas == 0 {
            self.none_of(&["write_acks_on_disk"], "is of no use without write_acks, which says how many replicas")?;
        }
        if on_disk && self.required("redis_timeout", parse::limit)? < WriteAcks::MIN_ANSWER_ON_DISK {
            const WHY: &str = "needs a redis_timeout of 9s or more: replicas tell of their disks once a second";
            self.none_of(&["write_acks_on_disk"], WHY)?;
        }
        Ok(WriteAcks { replicas, on_disk })
    }

    /// How much memory the private Redis may take.
    pub(super) fn redis_max_memory(&self) -> Result<Option<MaxMemory>, SettingsError> {
        if let Some(place) = PLACES.iter().find(|name| self.topmost(name).is_some()) {
            let why = format!(
                "is for the private Redis, and {place} is set: set the maxmemory of that Redis (docker compose: REDIS_MAX_MEMORY)"
            );
            return self.none_of(&["redis_max_memory"], &why).map(|()| None);
        }
        Ok(self.optional("redis_max_memory", MaxMemory::parse)?.or_else(MaxMemory::of_this_machine))
    }

    fn one(&self, url: RedisUrl) -> Result<Deployment, SettingsError> {
        let (credentials, tls_files) = self.access("redis_url", &url)?;
        Ok(Deployment::One(url.with_credentials(credentials).with_tls_files(tls_files)))
    }

    fn cluster(&self, seeds: Vec<RedisUrl>) -> Result<Deployment, SettingsError> {
        let refuse = |why: &str| self.secret("redis_cluster", |_| Err::<(), _>(why.to_owned())).map(drop);
        if seeds.iter().any(RedisUrl::has_database) {
            refuse("names a database, and a cluster has the first alone")?;
        }
        if seeds.iter().any(|seed| !seed.is_reached_like(&seeds[0])) {
            refuse("has URLs that differ in more than the address: all servers are reached in the same way, by TCP")?;
        }
        let (credentials, tls_files) = self.access("redis_cluster", &seeds[0])?;
        let seeds = seeds.into_iter();
        let seeds = seeds.map(|seed| seed.with_credentials(credentials.clone()).with_tls_files(tls_files.clone()));
        Ok(Deployment::Cluster(seeds.collect()))
    }

    fn sentinel(&self, sentinels: Vec<RedisUrl>) -> Result<Deployment, SettingsError> {
        if sentinels.iter().any(|sentinel| !sentinel.is_reached_like(&sentinels[0])) {
            const WHY: &str =
                "has URLs that differ in more than the address: all sentinels are reached in the same way, by TCP";
            self.secret("redis_sentinel", |_| Err::<(), _>(WHY.to_owned()))?;
        }
        // A user in these URLs is one of the sentinels.
        let servers = sentinels[0].without_login();
        let (credentials, tls_files) = self.access("redis_sentinel", &servers)?;
        let sentinels = sentinels.into_iter().map(|url| url.without_database().with_tls_files(tls_files.clone()));
        let master = self.optional("redis_sentinel_master", parse::name)?;
        Ok(Deployment::Sentinel {
            sentinels: sentinels.collect(),
            master: master.unwrap_or_else(|| DEFAULT_MASTER.to_owned()),
            servers: servers.with_credentials(credentials).with_tls_files(tls_files),
        })
    }

    /// The credentials and certificates that are set beside `url`, which is the value of the setting `place`.
    fn access(&self, place: &str, url: &RedisUrl) -> Result<(Credentials, TlsFiles), SettingsError> {
        if url.has_username() {
            self.none_of(&["redis_username"], &format!("is a second user: {place} has one already"))?;
        }
        if url.has_password() {
            self.none_of(&["redis_password_file"], &format!("is a second password: {place} has one already"))?;
        }
        if !url.is_tls() {
            self.none_of(&FOR_TLS, &format!("is for TLS, and {place} doesn't begin with rediss://"))?;
        }
        let credentials = Credentials {
            username: self.optional("redis_username", parse::name)?,
            password_file: self.optional("redis_password_file", parse::path)?,
        };
        let tls_files =
            TlsFiles { ca_file: self.optional("redis_ca_file", parse::path)?, client_files: self.client_files()? };
        if !url.has_password() && credentials.password_file.is_none() {
            // Redis would be asked as its default user, without a word.
            const WHY: &str = "is a user without a password; name its file in redis_password_file";
            self.none_of(&["redis_username"], WHY)?;
            if url.has_username() {
                self.secret(place, |_| Err::<(), _>(WHY.to_owned()))?;
            }
        }
        Ok((credentials, tls_files))
    }

    /// A client's certificate and its key.
    fn client_files(&self) -> Result<Option<ClientFiles>, SettingsError> {
        let files = self.both("redis_client_cert_file", parse::path, "redis_client_key_file", parse::path)?;
        Ok(files.map(|(cert, key)| ClientFiles { cert, key }))
    }
}

/// Reads URLs with commas between them: one at least.
fn urls(text: &str) -> Result<Vec<RedisUrl>, String> {
    let url = |part: &str| RedisUrl::parse(part.trim()).map_err(|why| format!("has a part that {why}"));
    text.split(',').map(url).collect()
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
        assert_eq!(environment(pairs).unwrap().write_acks, expected);
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
        assert_eq!(with(set).unwrap().redis.unwrap().to_string(), expected);
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

    fn with(set: &[(&str, &str)]) -> Result<crate::config::Settings, SettingsError> {
        let set: Vec<_> = set.iter().map(|(name, value)| (format!("ESTIMATOR_{name}"), *value)).collect();
        environment(&set.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
    }
}
