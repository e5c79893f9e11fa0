//! The Redis deployment, and the settings that contradict it.

use rstest::rstest;

use super::environment;
use crate::redis::WriteAcks;

/// Sets `url`, and each of `names` to `x`.
fn with_url<'a>(url: &'a str, names: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    names.iter().map(|name| (*name, "x")).chain([("redis_url", url)]).collect()
}

#[rstest]
#[case::second_user("redis://me:hunter2@host", &["redis_username"], "redis_username: \"x\" is a second user: redis_url has one already")]
#[case::second_password("redis://me:hunter2@host", &["redis_password_file"], "redis_password_file: \"x\" is a second password: redis_url")]
#[case::second_password_of_socket("redis+unix:///s?pass=hunter2", &["redis_password_file"], "redis_password_file: \"x\" is a second password")]
#[case::user_without_password("redis://host", &["redis_username"], "redis_username: \"x\" is a user without a password; set redis_password_file")]
#[case::user_in_url_without_password("redis://me@host", &[], "redis_url: the value is a user without a password; set redis_password_file")]
#[case::ca_without_tls("redis://host", &["redis_ca_file"], "redis_ca_file: \"x\" needs TLS; begin redis_url with rediss://")]
#[case::ca_of_socket("redis+unix:///s", &["redis_ca_file"], "redis_ca_file: \"x\" needs TLS; begin redis_url")]
#[case::certificate_without_tls("redis://host", &["redis_client_cert_file", "redis_client_key_file"], "redis_client_cert_file: \"x\" needs TLS")]
#[case::key_without_tls("redis://host", &["redis_client_key_file"], "redis_client_key_file: \"x\" needs TLS")]
#[case::certificate_without_key("rediss://host", &["redis_client_cert_file"], "redis_client_cert_file: \"x\" has no effect without redis_client_key_file")]
#[case::key_without_certificate("rediss://host", &["redis_client_key_file"], "redis_client_key_file: \"x\" has no effect without redis_client_cert_file")]
#[case::ca_of_private_redis("", &["redis_ca_file"], "redis_ca_file: \"x\" needs a Redis of your own; set redis_url, redis_cluster or redis_sentinel")]
#[case::user_of_private_redis("", &["redis_username"], "redis_username: \"x\" needs a Redis of your own; set redis_url, redis_cluster or redis_sentinel")]
#[case::password_of_private_redis("", &["redis_password_file"], "redis_password_file: \"x\" needs a Redis of your own; set redis_url, redis_cluster or redis_sentinel")]
fn environment_refuses_contradiction_of_url(#[case] url: &str, #[case] names: &[&str], #[case] message: &str) {
    let error = environment(with_url(url, names)).unwrap_err().to_string();
    assert!(error.starts_with(message) && error.contains(" (set by ESTIMATOR_REDIS_"), "{error}");
    assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
}

#[rstest]
#[case::password_of_default_user("redis://host", &["redis_password_file"])]
#[case::password_of_user_in_url("redis://me@host", &["redis_password_file"])]
#[case::user_of_password_in_url("redis://:hunter2@host", &["redis_username"])]
#[case::user_and_password_of_socket("redis+unix:///s", &["redis_username", "redis_password_file"])]
#[case::tls("rediss://host", &[])]
#[case::ca("rediss://host", &["redis_ca_file"])]
#[case::client_certificate("rediss://me@host", &["redis_password_file", "redis_client_cert_file", "redis_client_key_file"])]
fn environment_accepts_access_beside_url(#[case] url: &str, #[case] names: &[&str]) {
    environment(with_url(url, names)).unwrap();
}

#[rstest]
#[case::default(&[], WriteAcks::default())]
#[case::default_set(&[("write_acks", "0"), ("write_acks_on_disk", "false")], WriteAcks::default())]
#[case::in_memory(&[("redis_url", "redis://host"), ("write_acks", "2")], WriteAcks { replicas: 2, on_disk: false })]
#[case::on_disk(
    &[("redis_url", "redis://host"), ("write_acks", "1"), ("write_acks_on_disk", "true"), ("redis_timeout", "9s")],
    WriteAcks { replicas: 1, on_disk: true }
)]
fn acks_follow_the_settings(#[case] settings: &[(&str, &str)], #[case] expected: WriteAcks) {
    assert_eq!(environment(settings.iter().copied()).unwrap().acks(), expected);
}

#[test]
fn acks_on_disk_refuse_a_short_timeout() {
    let settings = [("redis_url", "redis://host"), ("write_acks", "1"), ("write_acks_on_disk", "true")];
    let error = environment(settings).unwrap_err().to_string();
    let expected =
        r#"write_acks_on_disk: "true" needs a redis_timeout of at least 9s; replicas report their disks once a second"#;
    assert!(error.starts_with(expected) && error.ends_with("(set by ESTIMATOR_WRITE_ACKS_ON_DISK)"), "{error}");
}

#[rstest]
#[case::cluster(&[("redis_cluster", "redis://a,redis://b:7000")], "the cluster of a:6379, b:7000")]
#[case::cluster_with_tls(
    &[("redis_cluster", "rediss://u:p@a, rediss://u:p@b"), ("redis_ca_file", "x")],
    "the cluster of a:6379 (TLS), b:6379 (TLS)"
)]
#[case::sentinels(&[("redis_sentinel", "redis://a:26379,redis://b:26379")], "mymaster, by the sentinels a:26379, b:26379")]
#[case::sentinel_with_database(
    &[("redis_sentinel", "redis://:p@a:26379/3"), ("redis_sentinel_master", "x"), ("redis_password_file", "x")],
    "x (database 3), by the sentinels a:26379"
)]
#[case::one_server(&[("redis_url", "redis://a"), ("partitions", "16")], "a:6379")]
fn deployment_follows_the_settings(#[case] settings: &[(&str, &str)], #[case] expected: &str) {
    assert_eq!(environment(settings.iter().copied()).unwrap().deployment().unwrap().to_string(), expected);
}

#[rstest]
#[case::url_and_cluster(&[("redis_url", "redis://a"), ("redis_cluster", "redis://a")], "redis_cluster: the value is a second Redis: redis_url is set, too; leave one of them empty")]
#[case::cluster_and_sentinel(&[("redis_cluster", "redis://a"), ("redis_sentinel", "redis://a")], "redis_sentinel: the value is a second Redis: redis_cluster is set")]
#[case::seed_without_scheme(&[("redis_cluster", "redis://a,b")], "redis_cluster: the value has a part that is not a usable Redis URL")]
#[case::empty_seed(&[("redis_cluster", "redis://a,")], "redis_cluster: the value has a part that is not a usable Redis URL")]
#[case::seed_with_database(&[("redis_cluster", "redis://a/1")], "redis_cluster: the value names a database")]
#[case::seeds_with_and_without_tls(&[("redis_cluster", "redis://a,rediss://b")], "redis_cluster: the value has URLs that differ")]
#[case::seeds_with_and_without_password(&[("redis_cluster", "redis://a,redis://:x@b")], "redis_cluster: the value has URLs that differ")]
#[case::socket_as_seed(&[("redis_cluster", "redis+unix:///s")], "redis_cluster: the value has URLs that differ")]
#[case::cluster_with_one_partition(&[("redis_cluster", "redis://a"), ("partitions", "1")], "partitions: \"1\" is too few for redis_cluster")]
#[case::partitions_of_no_power(&[("partitions", "3")], "partitions: \"3\" must be a power of two from 1 to 1024")]
#[case::master_of_url(&[("redis_url", "redis://a"), ("redis_sentinel_master", "x")], "redis_sentinel_master: \"x\" has no effect")]
#[case::master_of_private_redis(&[("redis_sentinel_master", "x")], "redis_sentinel_master: \"x\" needs a Redis of your own")]
#[case::memory_of_url(&[("redis_url", "redis://a"), ("redis_max_memory", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, but redis_url is")]
#[case::memory_of_cluster(&[("redis_cluster", "redis://a"), ("redis_max_memory", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, but redis_cluster is")]
#[case::memory_of_sentinel(&[("redis_sentinel", "redis://a"), ("redis_max_memory", "2gb")], "redis_max_memory: \"2gb\" is for the private Redis, but redis_sentinel is")]
#[case::memory_in_another_unit(&[("redis_max_memory", "2GiB")], "redis_max_memory: \"2GiB\" must be a size of at least 1mb, such as 512mb or 2gb")]
#[case::sentinels_with_and_without_database(&[("redis_sentinel", "redis://a,redis://b/1")], "redis_sentinel: the value has URLs that differ")]
#[case::ca_of_cluster_without_tls(&[("redis_cluster", "redis://a"), ("redis_ca_file", "x")], "redis_ca_file: \"x\" needs TLS; begin redis_cluster")]
fn environment_refuses_contradiction(#[case] settings: &[(&str, &str)], #[case] message: &str) {
    let error = environment(settings.iter().copied()).unwrap_err().to_string();
    assert!(error.starts_with(message) && error.contains(" (set by ESTIMATOR_"), "{error}");
}
