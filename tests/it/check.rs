//! `segment-estimator check`: the settings, Redis, and an exit code.

use std::path::Path;

use rstest::rstest;
use segment_estimator::store::diagnostics::Permissions;

use crate::helpers::{
    Proxy, Redis, Service, TestApp, binary, kill, private_redis, private_redis_connection, private_redis_pid, run,
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
    assert!(error.contains("can't serve: failed to connect to Redis: ") && error.lines().count() == 1, "{error}");
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
    let why = "can't serve: it is a replica of 127.0.0.1:1; the service needs a primary\n";
    assert!(!content && error.starts_with("segment-estimator: redis_url: the Redis at "), "{error}");
    assert!(error.ends_with(why) && error.lines().count() == 1, "{error}");
}

/// On threads of their own: the proxy has to pass on while this test waits for the check.
#[rstest]
#[case::client("SETINFO", "it hung up at the first command (")]
#[case::info("INFO\r\n$6\r\nserver", "it hung up at AUTH, SELECT, INFO or CLIENT (")]
#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_a_proxy_hangs_up_at(#[case] word: &'static str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start_refusing(&redis, word).await;
    let (content, _, error) = check(folder.path(), &["--redis-url", &proxy.url()]);
    assert!(!content && error.contains(why) && error.contains("be a proxy that refuses these commands"), "{error}");
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

/// What `check` says of a Redis whose user `me` has the rules that the service needs, and then these.
fn check_with_acl(rules: &[&str]) -> (bool, String, String) {
    let needed = Permissions::acl_rules();
    check_with_just(&[&needed.iter().map(String::as_str).collect::<Vec<_>>()[..], rules].concat())
}

/// What `check` says of a Redis whose user `me` has these rules alone.
fn check_with_just(rules: &[&str]) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.call::<()>(&[&["ACL", "SETUSER", "me", "reset", "on", ">hunter2"], rules].concat());
    check(folder.path(), &["--redis-url", &format!("{}?user=me&pass=hunter2", redis.url())])
}

const TELLS: [&str; 2] = ["+acl|whoami", "+acl|dryrun"];

#[test]
fn check_passes_with_an_acl_that_allows_what_is_needed() {
    let (content, table, error) = check_with_acl(&TELLS);
    assert!(content, "{error}");
    assert!(table.lines().last().unwrap().ends_with("it refuses writes when its memory is full"), "{table}");
}

#[test]
fn check_says_that_an_acl_keeps_it_from_looking_at_all_keys() {
    let line = "\nnot all keys were looked at: Redis refuses `SCAN`; grant +scan\n";
    let (content, table, error) = check_with_acl(&[&TELLS[..], &["-scan"]].concat());
    assert!(content && table.contains(line), "{table}{error}");
    let (_, table, _) = check_with_acl(&TELLS);
    assert!(!table.contains("looked at"), "{table}");
}

#[test]
fn check_fails_for_each_needed_command_that_an_acl_forbids() {
    for command in Permissions::needed_commands().into_iter().filter(|command| *command != "PING") {
        let command = command.to_lowercase();
        let (content, _, error) = check_with_acl(&[&TELLS[..], &[&format!("-{command}")]].concat());
        assert!(!content && error.contains("can't serve: its ACL forbids a required command: "), "{command}: {error}");
        assert!(error.contains(&format!("'{command}'")) && error.lines().count() == 1, "{command}: {error}");
    }
}

#[test]
fn check_fails_for_keys_that_an_acl_forbids() {
    let (content, _, error) = check_with_acl(&[&TELLS[..], &["resetkeys"]].concat());
    assert!(!content && error.contains("can't serve: its ACL forbids a required command: "), "{error}");
    assert!(error.contains("'segment:") && error.lines().count() == 1, "{error}");
}

#[test]
fn check_fails_for_each_needed_command_that_redis_does_not_have() {
    for command in Permissions::needed_commands().into_iter().filter(|command| *command != "PING") {
        let (redis, folder) = (Redis::start_with(&["--rename-command", command, ""]), tempfile::tempdir().unwrap());
        let (content, _, error) = check(folder.path(), &["--redis-url", &redis.url()]);
        let expected = format!("can't serve: it lacks the required command `{command}`, which is renamed");
        assert!(!content && error.contains(&expected) && error.lines().count() == 1, "{command}: {error}");
    }
}

/// The ACL tells what `COMMAND INFO` may not be asked for.
#[test]
fn check_finds_a_missing_command_without_being_allowed_to_list_commands() {
    let (redis, folder) = (Redis::start_with(&["--rename-command", "EVAL", ""]), tempfile::tempdir().unwrap());
    let rules = ["ACL", "SETUSER", "me", "on", ">hunter2", "~*", "+@all", "-command"];
    redis.call::<()>(&rules);
    let (content, _, error) = check(folder.path(), &["--redis-url", &format!("{}?user=me&pass=hunter2", redis.url())]);
    assert!(!content && error.contains("it lacks the required command `EVAL`"), "{error}");
}

/// Whatever else is asked is forbidden, and that is no failure of the check.
#[test]
fn check_passes_with_an_acl_that_does_not_tell_and_says_so() {
    let unknown = "; whether its ACL permits all required commands is unknown";
    let little = check_with_just(&["~layout", "~segments", "+ping", "+get", "+exists"]);
    let enough = check_with_acl(&[]);
    for ((content, table, error), first_words) in
        [(little, "a Redis of unknown version"), (enough, "it refuses writes when its memory is full")]
    {
        assert!(content && error.is_empty(), "{error}");
        assert!(table.lines().last().unwrap().ends_with(&format!("{first_words}{unknown}")), "{table}");
    }
}

#[rstest]
#[case::managed_default(
    "volatile-lru",
    "; it evicts histories, and tombstones of deleted users during a move, when its memory is full (volatile-lru)"
)]
#[case::cache(
    "allkeys-lru",
    "; it evicts whole segments when its memory is full, which makes counts wrong (allkeys-lru)"
)]
fn check_tells_of_a_policy_that_evicts(#[case] policy: &str, #[case] expected: &str) {
    let (redis, folder) = (Redis::start_with(&["--maxmemory-policy", policy]), tempfile::tempdir().unwrap());
    let (content, table, error) = check(folder.path(), &["--redis-url", &redis.url()]);
    assert!(content, "{error}");
    let last = table.lines().last().unwrap();
    assert!(last.contains(expected) && last.ends_with("set maxmemory-policy to noeviction"), "{last}");
}

#[test]
fn a_bad_setting_is_named_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (content, table, error) = check(folder.path(), &["--window", "soon"]);
    assert!(!content && table.is_empty(), "{table}");
    assert!(error.starts_with(r#"segment-estimator: window: "soon" is not a duration"#), "{error}");
}
