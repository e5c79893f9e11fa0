//! The private Redis: it lives and dies with the service, and keeps its data.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::helpers::{
    Service, binary, eventually, is_running, kill, private_redis, private_redis_connection, private_redis_pid, refusal,
};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_clean_stop_ends_redis_and_the_next_start_finds_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let redis = private_redis_pid(folder.path());

    assert!(service.terminate().success());
    assert!(!is_running(redis), "the service ends after its Redis");

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 1);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn a_killed_service_leaves_no_redis_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, round);
        service.record(&format!("u{round}"), "sports").await;
        let redis = private_redis_pid(folder.path());

        service.kill();
        // The next round starts at once and waits for this Redis by itself; the last one is waited for here.
        if round == 2 {
            eventually("Redis has ended", async || !is_running(redis)).await;
        }
    }
}

#[tokio::test]
async fn killing_both_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, round);
        service.record(&format!("u{round}"), "sports").await;
        kill("-KILL", private_redis_pid(folder.path()));
        service.kill();
    }
    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 3);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn a_redis_that_heeds_nobody_is_killed_and_the_next_service_waits_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(folder.path(), &[]);
    first.record("u104010", "sports").await;
    let redis = private_redis_pid(folder.path());
    let mut connection = private_redis_connection(folder.path());
    let busy =
        tokio::task::spawn_blocking(move || redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection));
    eventually("Redis is busy", async || first.status_of("/readyz").await == 503).await;

    first.kill();
    let second = Service::start(folder.path(), &[]);

    assert!(!is_running(redis), "two servers on the same files");
    assert!(busy.await.unwrap().is_err());
    assert_eq!(second.count("sports").await, 1);
    assert!(second.terminate().success());
}

#[tokio::test]
async fn a_redis_that_dies_alone_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let first = private_redis_pid(folder.path());

    kill("-KILL", first);
    eventually("another Redis answers", async || {
        let is_ready = service.status_of("/readyz").await == 200;
        is_ready && private_redis_pid(folder.path()) != first
    })
    .await;

    assert_eq!(service.count("sports").await, 1);
    let second = private_redis_pid(folder.path());
    assert!(service.terminate().success());
    assert!(!is_running(second));
}

#[tokio::test]
async fn redis_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let redis = private_redis(folder.path());
    assert_eq!(mode(&folder.path().join("data")), 0o700);
    assert_eq!(mode(&redis), 0o700);
    assert_eq!(mode(&redis.join("redis.sock")), 0o700);

    let mut connection = private_redis_connection(folder.path());
    let mut config =
        |name: &str| -> Vec<String> { redis::cmd("CONFIG").arg("GET").arg(name).query(&mut connection).unwrap() };
    assert_eq!(config("port")[1], "0");
    assert_eq!(config("appendonly")[1], "yes");
    assert_eq!(config("appendfsync")[1], "always");
    assert!(service.terminate().success());
}

#[test]
fn two_services_on_one_folder_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert_eq!(error, "segment-estimator: data_dir: data is in use by another segment-estimator\n");
    assert!(service.terminate().success());
}

#[test]
fn a_missing_server_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0"]).env("PATH", folder.path()));
    assert!(error.contains("apt-get install redis-server") && error.contains("ESTIMATOR_REDIS_URL"), "{error}");
}

#[test]
fn a_path_too_long_for_a_socket_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", &long]));
    assert!(error.contains("too long a path for a Unix socket"), "{error}");
}

#[test]
fn a_folder_that_is_a_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", "taken"]));
    assert!(error.starts_with("segment-estimator: data_dir: can't use taken: "), "{error}");
}

#[test]
fn files_that_redis_cannot_read_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let redis = private_redis(folder.path());
    std::fs::create_dir_all(&redis).unwrap();
    std::fs::write(redis.join("appendonlydir"), "not a folder").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert!(error.contains("the private Redis didn't start") && error.contains("redis.log"), "{error}");
}
