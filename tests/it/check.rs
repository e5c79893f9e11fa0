//! `segment-estimator check`: the settings, Redis, and an exit code.

use std::path::Path;

use rstest::rstest;

use crate::helpers::{
    Redis, Service, TestApp, binary, kill, private_redis, private_redis_connection, private_redis_pid, run,
};

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
    assert!(table.lines().last().unwrap().contains("; it has an append-only file, synced "), "{table}");
    assert!(!private_redis(folder.path()).join("redis.sock").exists(), "it runs no more");
}

#[test]
fn the_private_redis_of_a_running_service_is_asked_and_left_running() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let before = private_redis_pid(folder.path());
    let (content, table, error) = check(folder.path(), &[]);
    assert!(content, "{error}");
    assert!(table.lines().last().unwrap().contains("; it has an append-only file, synced "), "{table}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn something_else_than_redis_is_told_in_one_line() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let (content, _, error) = check(folder.path(), &["--redis-url", &format!("redis://{}", app.address)]);
    assert!(!content);
    assert!(error.contains("can't serve: can't connect to Redis: ") && error.lines().count() == 1, "{error}");
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
fn a_replica_fails_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let (content, _, error) = check(folder.path(), &["--redis-url", &redis.url()]);
    let why = "can't serve: it is a replica, of 127.0.0.1:1; a primary is needed\n";
    assert!(!content && error.starts_with("segment-estimator: redis_url: the Redis at "), "{error}");
    assert!(error.ends_with(why) && error.lines().count() == 1, "{error}");
}

#[test]
fn a_private_redis_that_cannot_serve_is_not_named_by_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut private_redis_connection(folder.path())).unwrap();
    let (content, _, error) = check(folder.path(), &[]);
    assert!(!content && error.starts_with("segment-estimator: the private Redis at "), "{error}");
    assert!(service.terminate().success());
}

/// What `check` says of a Redis whose user `me` has these rules.
fn check_with_acl(rules: &[&str]) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.call::<()>(&[&["ACL", "SETUSER", "me", "reset", "on", ">hunter2"], rules].concat());
    check(folder.path(), &["--redis-url", &format!("{}?user=me&pass=hunter2", redis.url())])
}

/// The rules that the documentation of the store asks for.
const ENOUGH: [&str; 29] = [
    "~segment:*",
    "~segments",
    "~layout",
    "~history:*",
    "~forgotten",
    "+ping",
    "+info",
    "+time",
    "+get",
    "+set",
    "+zadd",
    "+zcard",
    "+zcount",
    "+zrange",
    "+zscore",
    "+zmscore",
    "+zremrangebyscore",
    "+eval",
    "+exists",
    "+zrem",
    "+xadd",
    "+xrange",
    "+rpush",
    "+lrange",
    "+lindex",
    "+llen",
    "+lpop",
    "+type",
    "+expire",
];
const TELLS: [&str; 2] = ["+acl|whoami", "+acl|dryrun"];

#[test]
fn an_acl_that_allows_what_is_needed_passes() {
    let (content, table, error) = check_with_acl(&[&ENOUGH[..], &TELLS].concat());
    assert!(content, "{error}");
    assert!(table.lines().last().unwrap().ends_with("it refuses writes when its memory is full"), "{table}");
}

#[rstest]
#[case("-get", "'get'")]
#[case("-set", "'set'")]
#[case("-zadd", "'zadd'")]
#[case("-zcard", "'zcard'")]
#[case("-zcount", "'zcount'")]
#[case("-zrange", "'zrange'")]
#[case("-zscore", "'zscore'")]
#[case("-zmscore", "'zmscore'")]
#[case("-zremrangebyscore", "'zremrangebyscore'")]
#[case("-eval", "'eval'")]
#[case("-exists", "'exists'")]
#[case("-zrem", "'zrem'")]
#[case("-xadd", "'xadd'")]
#[case("-xrange", "'xrange'")]
#[case("-rpush", "'rpush'")]
#[case("-lrange", "'lrange'")]
#[case("-lindex", "'lindex'")]
#[case("-llen", "'llen'")]
#[case("-lpop", "'lpop'")]
#[case("-type", "'type'")]
#[case("-expire", "'expire'")]
#[case("resetkeys", "'segment:")]
fn an_acl_that_forbids_a_command_fails(#[case] rule: &str, #[case] what: &str) {
    let (content, _, error) = check_with_acl(&[&ENOUGH[..], &TELLS, &[rule]].concat());
    assert!(!content && error.contains("can't serve: its ACL forbids what is needed: "), "{error}");
    assert!(error.contains(what) && error.lines().count() == 1, "{error}");
}

/// Whatever else is asked is forbidden, and that is no failure of the check.
#[rstest]
#[case(&["~layout", "~segments", "+ping", "+get", "+exists"], "a Redis that doesn't tell its version; it doesn't tell whether its ACL allows what is needed")]
#[case(&ENOUGH, "it refuses writes when its memory is full; it doesn't tell whether its ACL allows what is needed")]
fn an_acl_that_forbids_to_ask_passes_and_says_so(#[case] rules: &[&str], #[case] last_words: &str) {
    let (content, table, error) = check_with_acl(rules);
    assert!(content && error.is_empty(), "{error}");
    assert!(table.lines().last().unwrap().ends_with(last_words), "{table}");
}

#[test]
fn a_bad_setting_is_named_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (content, table, error) = check(folder.path(), &["--window", "soon"]);
    assert!(!content && table.is_empty(), "{table}");
    assert!(error.starts_with(r#"segment-estimator: window: "soon" is not a duration"#), "{error}");
}
