//! `segment-estimator check`: prints the settings and checks Redis.

use std::path::Path;

use rstest::rstest;
use segment_estimator::store::diagnostics::Permissions;

use crate::helpers::{
    Proxy, Redis, Service, TestApp, binary, kill, private_redis, private_redis_connection, private_redis_pid, run,
};

/// Runs `check` in `folder`. Returns whether it succeeded, standard output and standard error.
fn check(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = run(binary(folder).arg("check").args(arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Returns the words of the line of `table` that starts with `name`.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|words| words.first() == Some(&name)).unwrap_or_else(|| panic!("no {name} in\n{table}"))
}

#[test]
fn check_describes_redis() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let (succeeded, table, error) = check(folder.path(), &["--redis-url", &redis.url(), "--window", "4s"]);
    assert!(succeeded, "{error}");
    assert_eq!(row(&table, "window"), ["window", "4s", "--window"]);
    assert_eq!(row(&table, "max_waiting"), ["max_waiting", "10000", "default"]);
    let last = table.lines().last().unwrap();
    assert!(last.contains(" is Redis ") || last.contains(" is Valkey "), "{last}");
    assert!(
        last.contains("; it refuses writes when its memory is full; it keeps segments of up to 128 users as lists"),
        "{last}"
    );
    let permissions = permissions_of_the_engine();
    assert!(last.ends_with(&format!("; set zset-max-listpack-entries to 16{permissions}")), "{last}");

    redis.call::<()>(&["CONFIG", "SET", "zset-max-ziplist-entries", "16"]);
    let (_, table, _) = check(folder.path(), &["--redis-url", &redis.url()]);
    let last = table.lines().last().unwrap();
    assert!(last.ends_with(&format!("; it refuses writes when its memory is full{permissions}")), "{last}");
    assert!(!private_redis(folder.path()).exists(), "a private Redis was started");
}

#[test]
fn check_starts_and_stops_the_private_redis() {
    let folder = tempfile::tempdir().unwrap();
    let (succeeded, table, error) = check(folder.path(), &[]);
    assert!(succeeded, "{error}");
    assert_eq!(row(&table, "redis_url")[1..], ["a", "private", "Redis", "not", "set"]);
    assert!(table.lines().last().unwrap().contains("; it has an append-only file, synced "), "{table}");
    assert!(!table.contains("as lists"), "{table}");
    assert!(!private_redis(folder.path()).join("redis.sock").exists(), "the private Redis is still running");
}

#[test]
fn check_uses_the_private_redis_of_a_running_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let before = private_redis_pid(folder.path());
    let (succeeded, table, error) = check(folder.path(), &[]);
    assert!(succeeded, "{error}");
    assert!(table.lines().last().unwrap().contains("; it has an append-only file, synced "), "{table}");
    assert_eq!(private_redis_pid(folder.path()), before, "the private Redis was restarted");
    assert!(service.terminate().success());
}

#[test]
fn check_waits_for_the_private_redis_of_a_running_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    // The service restarts it after a pause.
    kill("-KILL", private_redis_pid(folder.path()));
    let (succeeded, _, error) = check(folder.path(), &[]);
    assert!(succeeded, "{error}");
    assert!(service.terminate().success());
}

#[test]
fn check_shows_the_log_format_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let (_, table, _) = check(folder.path(), &["--redis-url", &redis.url()]);
    assert_eq!(row(&table, "log_format")[1..].join(" "), "pretty on a terminal, otherwise json not set");
    let (_, table, _) = check(folder.path(), &["--redis-url", &redis.url(), "--log-format", "pretty"]);
    assert_eq!(row(&table, "log_format")[1..].join(" "), "pretty --log-format");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn check_reports_another_server_in_one_line() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let (succeeded, _, error) = check(folder.path(), &["--redis-url", &format!("redis://{}", app.address)]);
    assert!(!succeeded);
    assert!(error.contains("can't serve: failed to connect to Redis: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn check_names_an_unreachable_redis_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let (succeeded, table, error) = check(folder.path(), &["--redis-url", "redis://me:hunter2@127.0.0.1:1"]);
    assert!(!succeeded);
    assert_eq!(row(&table, "redis_url"), ["redis_url", "127.0.0.1:1", "--redis-url"]);
    let expected = "segment-estimator: redis_url: the Redis at 127.0.0.1:1 can't serve: ";
    assert!(error.starts_with(expected) && error.lines().count() == 1, "{error}");
    assert!(!table.contains("hunter2") && !error.contains("hunter2"), "{table}{error}");
}

#[test]
fn check_fails_for_a_replica() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let (succeeded, _, error) = check(folder.path(), &["--redis-url", &redis.url()]);
    let why = "can't serve: it is a replica of 127.0.0.1:1; the service needs a primary\n";
    assert!(!succeeded && error.starts_with("segment-estimator: redis_url: the Redis at "), "{error}");
    assert!(error.ends_with(why) && error.lines().count() == 1, "{error}");
}

/// With several threads, since the proxy must forward while the test waits for the check.
#[rstest]
#[case::client("SETINFO", "it hung up at the first command (")]
#[case::info("INFO\r\n$6\r\nserver", "it hung up at AUTH, SELECT, INFO or CLIENT (")]
#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_command_at_which_a_proxy_hangs_up(#[case] word: &'static str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start_closing_at(&redis, word).await;
    let (succeeded, _, error) = check(folder.path(), &["--redis-url", &proxy.url()]);
    assert!(!succeeded && error.contains(why) && error.contains("be a proxy that refuses these commands"), "{error}");
}

#[test]
fn check_reports_a_private_redis_that_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut private_redis_connection(folder.path())).unwrap();
    let (succeeded, _, error) = check(folder.path(), &[]);
    assert!(!succeeded && error.starts_with("segment-estimator: the private Redis at "), "{error}");
    assert!(service.terminate().success());
}

/// Runs `check` on a Redis whose user `me` has the rules that the service needs, and then `rules`.
fn check_with_acl(rules: &[&str]) -> (bool, String, String) {
    let needed = Permissions::acl_rules(false);
    check_with_only(&[&needed.iter().map(String::as_str).collect::<Vec<_>>()[..], rules].concat())
}

/// Runs `check` on a Redis whose user `me` has only `rules`.
fn check_with_only(rules: &[&str]) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.call::<()>(&[&["ACL", "SETUSER", "me", "reset", "on", ">hunter2"], rules].concat());
    check(folder.path(), &["--redis-url", &format!("{}?user=me&pass=hunter2", redis.url())])
}

/// Rules that let `check` ask for its own permissions.
const DRY_RUN: [&str; 2] = ["+acl|whoami", "+acl|dryrun"];

#[test]
fn check_passes_with_an_acl_that_allows_the_needed_commands() {
    let (succeeded, table, error) = check_with_acl(&DRY_RUN);
    assert!(succeeded, "{error}");
    let expected = format!("it refuses writes when its memory is full{HIDDEN}{}", permissions_of_the_engine());
    assert!(table.lines().last().unwrap().ends_with(&expected), "{table}");
}

/// What `check` says of a Redis that doesn't tell what its ACL permits.
const UNKNOWN: &str = "; whether its ACL permits all required commands is unknown";

/// Returns what `check` says of permissions that are enough: nothing, unless the engine has no `ACL DRYRUN`.
fn permissions_of_the_engine() -> &'static str {
    if Redis::start().has_acl_dry_run() { "" } else { UNKNOWN }
}

/// What `check` says of a Redis whose ACL lacks `CONFIG GET`.
const HIDDEN: &str = "; it doesn't show its settings, since its ACL forbids `CONFIG GET`: check appendfsync and \
                      zset-max-listpack-entries where it is configured";

/// As on most managed services.
#[test]
fn check_reports_a_redis_without_config() {
    let (redis, folder) = (Redis::start_with(&["--rename-command", "CONFIG", ""]), tempfile::tempdir().unwrap());
    let (succeeded, table, error) = check(folder.path(), &["--redis-url", &redis.url()]);
    assert!(succeeded && error.is_empty(), "{error}");
    let hidden = "; it doesn't show its settings, since it has no `CONFIG`, as most managed services: check appendfsync and \
                  zset-max-listpack-entries where it is configured";
    let expected = format!("{hidden}{}", permissions_of_the_engine());
    assert!(table.lines().last().unwrap().ends_with(&expected), "{table}");
}

#[test]
fn check_reports_an_acl_without_scan() {
    let line = "\nnot all keys were scanned: Redis refuses `SCAN`; grant +scan\n";
    let (succeeded, table, error) = check_with_acl(&[&DRY_RUN[..], &["-scan"]].concat());
    assert!(succeeded && table.contains(line), "{table}{error}");
    let (_, table, _) = check_with_acl(&DRY_RUN);
    assert!(!table.contains("scanned"), "{table}");
}

/// Without the dry run, `check` finds a command that it sends itself, and says that the others are unknown.
#[test]
fn check_fails_for_each_needed_command_that_an_acl_forbids() {
    let has_dry_run = Redis::start().has_acl_dry_run();
    let mut unknown = Vec::new();
    for command in Permissions::needed_commands(false).into_iter().filter(|command| *command != "PING") {
        let lower = command.to_lowercase();
        let (succeeded, table, error) = check_with_acl(&[&DRY_RUN[..], &[&format!("-{lower}")]].concat());
        if succeeded {
            assert!(table.lines().last().unwrap().ends_with(UNKNOWN), "{command}: {table}");
            unknown.push(command);
            continue;
        }
        let named = if has_dry_run { format!("'{lower}'") } else { format!("`{command}") };
        assert!(error.contains(&format!("can't serve: {}", refusal_of_the_engine())), "{command}: {error}");
        assert!(error.contains(&named) && error.lines().count() == 1, "{command}: {error}");
    }
    assert_eq!(unknown.contains(&"ZADD"), !has_dry_run, "{unknown:?}");
    assert!(unknown.is_empty() || !has_dry_run, "{unknown:?}");
}

/// Returns how `check` begins to describe a permission that is missing: by the dry run, or by the command that failed.
fn refusal_of_the_engine() -> &'static str {
    if Redis::start().has_acl_dry_run() { "its ACL forbids a required command: " } else { "Redis refused `" }
}

#[test]
fn check_fails_for_keys_that_an_acl_forbids() {
    let (succeeded, _, error) = check_with_acl(&[&DRY_RUN[..], &["resetkeys"]].concat());
    let refusal = refusal_of_the_engine();
    assert!(!succeeded && error.contains(&format!("can't serve: {refusal}")), "{error}");
    let key = if Redis::start().has_acl_dry_run() { "'segment:" } else { "`GET layout`" };
    assert!(error.contains(key) && error.lines().count() == 1, "{error}");
}

#[test]
fn check_fails_for_each_needed_command_that_redis_lacks() {
    for command in Permissions::needed_commands(false).into_iter().filter(|command| *command != "PING") {
        let (redis, folder) = (Redis::start_with(&["--rename-command", command, ""]), tempfile::tempdir().unwrap());
        let (succeeded, _, error) = check(folder.path(), &["--redis-url", &redis.url()]);
        let expected = format!("can't serve: it lacks the required command `{command}`, which is renamed");
        assert!(!succeeded && error.contains(&expected) && error.lines().count() == 1, "{command}: {error}");
    }
}

/// The ACL dry run shows it, without `COMMAND INFO`.
#[test]
fn check_finds_a_missing_command_without_permission_to_list_commands() {
    let (redis, folder) = (Redis::start_with(&["--rename-command", "EVAL", ""]), tempfile::tempdir().unwrap());
    let rules = ["ACL", "SETUSER", "me", "on", ">hunter2", "~*", "+@all", "-command"];
    redis.call::<()>(&rules);
    let (succeeded, table, error) =
        check(folder.path(), &["--redis-url", &format!("{}?user=me&pass=hunter2", redis.url())]);
    if redis.has_acl_dry_run() {
        assert!(!succeeded && error.contains("it lacks the required command `EVAL`"), "{error}");
    } else {
        assert!(succeeded && table.lines().last().unwrap().ends_with(UNKNOWN), "{table}{error}");
    }
}

/// The diagnostic commands are forbidden, which is not a failure.
#[test]
fn check_passes_and_reports_an_acl_that_forbids_the_dry_run() {
    let little = check_with_only(&["~layout", "~segments", "+ping", "+get", "+exists"]);
    let enough = check_with_acl(&[]);
    for ((succeeded, table, error), first_words) in
        [(little, "a Redis of unknown version"), (enough, "it refuses writes when its memory is full")]
    {
        assert!(succeeded && error.is_empty(), "{error}");
        assert!(table.lines().last().unwrap().ends_with(&format!("{first_words}{HIDDEN}{UNKNOWN}")), "{table}");
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
fn check_warns_of_an_eviction_policy(#[case] policy: &str, #[case] expected: &str) {
    let (redis, folder) = (Redis::start_with(&["--maxmemory-policy", policy]), tempfile::tempdir().unwrap());
    let (succeeded, table, error) = check(folder.path(), &["--redis-url", &redis.url()]);
    assert!(succeeded, "{error}");
    let last = table.lines().last().unwrap();
    assert!(last.contains(&format!("{expected}; set maxmemory-policy to noeviction")), "{last}");
}

#[test]
fn check_reports_only_an_invalid_setting() {
    let folder = tempfile::tempdir().unwrap();
    let (succeeded, table, error) = check(folder.path(), &["--window", "soon"]);
    assert!(!succeeded && table.is_empty(), "{table}");
    assert!(error.starts_with(r#"segment-estimator: window: "soon" is not a duration"#), "{error}");
}
