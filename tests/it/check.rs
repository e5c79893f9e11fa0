//! `segment-estimator check`: the settings, Redis, and an exit code.

use std::path::Path;

use crate::helpers::{Redis, Service, binary, kill, private_redis, private_redis_pid, run};

/// What `check` in `folder` ends with: whether it is content, standard output, standard error.
fn check(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = run(binary(folder).arg("check").args(arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The words of the line of `table` that starts with `name`.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|words| words.first() == Some(&name)).unwrap_or_else(|| panic!("no {name} in\n{table}"))
}

#[test]
fn a_redis_that_is_reached_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let (content, table, error) = check(folder.path(), &["--redis-url", &redis.url(), "--window", "4s"]);
    assert!(content, "{error}");
    assert_eq!(row(&table, "window"), ["window", "4s", "--window"]);
    assert_eq!(row(&table, "max_waiting"), ["max_waiting", "10000", "default"]);
    let last = table.lines().last().unwrap();
    assert!(last.contains(" is Redis ") || last.contains(" is Valkey "), "{last}");
    assert!(last.ends_with("it refuses writes when its memory is full"), "{last}");
    assert!(!private_redis(folder.path()).exists(), "no private Redis was asked for");
}

#[test]
fn a_private_redis_is_tried_and_stopped_again() {
    let folder = tempfile::tempdir().unwrap();
    let (content, table, error) = check(folder.path(), &[]);
    assert!(content, "{error}");
    assert_eq!(row(&table, "redis_url")[1..], ["a", "private", "Redis", "not", "set"]);
    assert!(table.lines().last().unwrap().contains("; it has an append-only file"), "{table}");
    assert!(!private_redis(folder.path()).join("redis.sock").exists(), "it runs no more");
}

#[test]
fn the_private_redis_of_a_running_service_is_asked_and_left_running() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let before = private_redis_pid(folder.path());
    let (content, table, error) = check(folder.path(), &[]);
    assert!(content, "{error}");
    assert!(table.lines().last().unwrap().contains("; it has an append-only file"), "{table}");
    assert_eq!(private_redis_pid(folder.path()), before, "it still runs");
    assert!(service.terminate().success());
}

#[test]
fn the_private_redis_of_a_running_service_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    // The service starts it again, after a pause.
    kill("-KILL", private_redis_pid(folder.path()));
    let (content, _, error) = check(folder.path(), &[]);
    assert!(content, "{error}");
    assert!(service.terminate().success());
}

#[test]
fn the_format_of_logs_is_that_of_the_service_not_of_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let (_, table, _) = check(folder.path(), &["--redis-url", &redis.url()]);
    assert_eq!(row(&table, "log_format")[1..].join(" "), "pretty on a terminal, otherwise json not set");
    let (_, table, _) = check(folder.path(), &["--redis-url", &redis.url(), "--log-format", "pretty"]);
    assert_eq!(row(&table, "log_format")[1..].join(" "), "pretty --log-format");
}

#[test]
fn a_redis_that_is_not_there_is_named_after_the_settings_and_the_password_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (content, table, error) = check(folder.path(), &["--redis-url", "redis://me:hunter2@127.0.0.1:1"]);
    assert!(!content);
    assert_eq!(row(&table, "redis_url"), ["redis_url", "127.0.0.1:1", "--redis-url"]);
    let expected = "segment-estimator: redis_url: the Redis at 127.0.0.1:1 can't serve: ";
    assert!(error.starts_with(expected) && error.lines().count() == 1, "{error}");
    assert!(!table.contains("hunter2") && !error.contains("hunter2"), "{table}{error}");
}

#[test]
fn a_bad_setting_is_named_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (content, table, error) = check(folder.path(), &["--window", "soon"]);
    assert!(!content && table.is_empty(), "{table}");
    assert!(error.starts_with(r#"segment-estimator: window: "soon" is not a duration"#), "{error}");
}
