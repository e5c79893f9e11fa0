//! Authentication to Redis: users of an ACL, and passwords in files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use segment_estimator::config::RawSettings;
use segment_estimator::store::diagnostics::Permissions;
use serde_json::json;

use crate::helpers::{
    Redis, Service, TestApp, binary, eventually, problem, refusal, run, settings, settings_with, success,
};

/// Creates an ACL user that may do what the service does and no more.
fn create_user(redis: &Redis, user: &str, password: &str) {
    let (password, needed) = (format!(">{password}"), Permissions::acl_rules(false));
    let rules = ["ACL", "SETUSER", user, "reset", "on", &password];
    let needed: Vec<_> = needed.iter().map(String::as_str).collect();
    redis.call::<()>(&[&rules[..], &needed, &redis.acl_rules_of_the_version()].concat());
}

fn access(user: &str, password_file: &Path) -> RawSettings {
    settings([("redis_username", user), ("redis_password_file", &password_file.display().to_string())])
}

#[tokio::test]
async fn connect_uses_an_acl_user_with_a_password_file() {
    let redis = Redis::start();
    create_user(&redis, "estimator", "hunter2");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "hunter2\n").unwrap();

    let app = TestApp::spawn_with(&redis, access("estimator", file.path())).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.count("sports").await, 1);
    let clients: String = redis.call(&["CLIENT", "LIST"]);
    assert!(clients.contains("user=estimator"), "{clients}");
}

/// Returns the commands that Redis has run since its statistics were reset, without those that a test sends.
fn commands_run(redis: &Redis) -> Vec<String> {
    let stats: String = redis.call(&["INFO", "commandstats"]);
    let names = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("config|")).map(str::to_uppercase).collect();
    names.sort();
    names
}

/// The list of required commands is complete and has no others.
#[tokio::test]
async fn service_sends_the_required_commands_and_no_others() {
    let redis = Redis::start();
    create_user(&redis, "estimator", "hunter2");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "hunter2").unwrap();
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    let settings = settings_with(
        access("estimator", file.path()),
        [("window", "1s"), ("prune_schedule", "* * * * * *"), ("history_interval", "1s"), ("max_segments", "2")],
    );
    let app = TestApp::spawn_with(&redis, settings).await;
    let at_start = commands_run(&redis);
    // A history that is a stream, and one with a sample beyond the retention.
    redis.call::<()>(&["XADD", "history:sports", "1-0", "n", "1"]);
    redis.call::<()>(&["RPUSH", "history:news", "1", "1"]);
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    // Before the service creates a data set, it looks for keys that this ACL may forbid.
    redis.call::<()>(&["ACL", "LOG", "RESET"]);
    let body = r#"{"user_id":"u104010","segment":"sports"}"#;
    app.record("u104010", "sports").await;
    success(app.lines_request(body).send().await.unwrap()).await;
    for path in [
        "/readyz",
        "/",
        "/segments",
        "/segments?sort=count",
        "/counts?segment=sports",
        "/segments/sports/count",
        "/segments/sports/histogram",
        "/segments/sports/history",
        "/overlap?segment=sports&segment=news",
        "/audience/count?all=sports&none=news",
        "/segments/news/history",
        "/users/u104010/segments",
    ] {
        assert_eq!(app.status_of(path).await, 200, "{path}");
    }
    app.record("u104011", "sports").await;
    app.record("u104011", "news").await;
    let third = json!({ "user_id": "u104011", "segment": "third" });
    problem(app.post_visit(&third).await, 422, "too-many-segments").await;
    success(app.request("DELETE", "/segments/nowhere").send().await.unwrap()).await;
    success(app.request("DELETE", "/users/u104011").send().await.unwrap()).await;
    // Wait until a segment was pruned and dropped, and a sample was added.
    eventually("all commands were sent", async || {
        let run = commands_run(&redis);
        app.record("u104010", "news").await;
        ["ZREMRANGEBYSCORE", "XADD", "LPOP", "EXPIRE"].iter().all(|name| run.iter().any(|run| run == name))
    })
    .await;

    // The test and the handshake send these, and some are optional.
    let own = ["ACL|LOG", "ACL|SETUSER", "AUTH", "CLIENT|SETINFO", "HELLO", "INFO", "SCAN", "SELECT", "TIME"];
    // Redis 6 counts no subcommands. Later versions count nothing else of these.
    let own = [&own[..], &["ACL", "CLIENT", "CONFIG"]].concat();
    let run = commands_run(&redis).into_iter().chain(at_start).filter(|name| !own.contains(&name.as_str()));
    let run: Vec<_> = run.collect::<BTreeSet<_>>().into_iter().collect();
    let mut needed = Permissions::needed_commands(false);
    needed.sort_unstable();
    assert_eq!(run, needed);
    assert_eq!(redis.call::<Vec<String>>(&["ACL", "LOG"]), [""; 0], "nothing was refused");
}

#[tokio::test]
async fn connect_reads_a_renewed_password() {
    let redis = Redis::start();
    create_user(&redis, "estimator", "old-secret");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "old-secret").unwrap();
    let app = TestApp::spawn_with(&redis, access("estimator", file.path())).await;
    app.record("u104010", "sports").await;

    create_user(&redis, "estimator", "new-secret");
    app.record("u104011", "sports").await;
    let break_connections = || redis.call::<()>(&["CLIENT", "KILL", "USER", "estimator"]);
    break_connections();
    problem(app.get("/segments/sports/count").await, 503, "store-unavailable").await;

    fs::write(file.path(), "new-secret").unwrap();
    eventually("connected again", async || app.status_of("/readyz").await == 200).await;
    assert_eq!(app.count("sports").await, 2);

    // No request fails if the file is renewed before the connection breaks.
    create_user(&redis, "estimator", "newer-secret");
    fs::write(file.path(), "newer-secret").unwrap();
    break_connections();
    assert_eq!(app.count("sports").await, 2);
}

#[tokio::test]
async fn errors_report_a_wrong_password_without_showing_it() {
    let redis = Redis::start();
    create_user(&redis, "estimator", "hunter2");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "hunter3").unwrap();
    // With other permissions, the start would log a warning as well.
    fs::set_permissions(password, fs::Permissions::from_mode(0o600)).unwrap();
    let url = redis.url();
    let arguments = ["--redis-url", &url, "--redis-username", "estimator", "--redis-password-file", "password"];
    let why = "failed to connect to Redis: it refused this user or password";

    let service = Service::start(folder.path(), &[&arguments[..], &["--log-filter", "trace"]].concat());
    let visit = json!({ "user_id": "u104010", "segment": "sports" });
    let document = problem(service.post_visit(&visit).await, 503, "store-unavailable").await;
    assert_eq!(service.status_of("/readyz").await, 503);
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(why), "{log:#?}");
    assert!(!format!("{log:?}{document}").contains("hunter"), "{log:#?}{document}");

    let check = run(binary(folder.path()).arg("check").args(arguments));
    assert_eq!(check.status.code(), Some(1));
    let (table, error) = (String::from_utf8(check.stdout).unwrap(), String::from_utf8(check.stderr).unwrap());
    assert!(error.ends_with(&format!("can't serve: {why}\n")) && error.lines().count() == 1, "{error}");
    assert!(table.contains("--redis-password-file") && !format!("{table}{error}").contains("hunter"), "{table}");
}

#[tokio::test]
async fn service_without_info_and_time_logs_no_warning() {
    let redis = Redis::start();
    create_user(&redis, "estimator", "hunter2");
    redis.call::<()>(&["ACL", "SETUSER", "estimator", "-info", "-time"]);
    let folder = tempfile::tempdir().unwrap();
    let service =
        Service::start(folder.path(), &["--redis-url", &format!("{}?user=estimator&pass=hunter2", redis.url())]);
    service.record("u104010", "sports").await;
    assert_eq!(service.count("sports").await, 1);
    let log = service.terminate_for_log();
    assert!(log.iter().all(|line| line.contains(r#""INFO""#)), "{log:#?}");
}

#[test]
fn start_and_check_refuse_an_unreadable_password_file() {
    let folder = tempfile::tempdir().unwrap();
    let start = ["--listen", "127.0.0.1:0", "--log-filter", "off"];
    for command in ["serve", "check"] {
        let mut binary = binary(folder.path());
        let arguments = ["--redis-url", "redis://127.0.0.1:1", "--redis-password-file", "secrets/nowhere"];
        let error = refusal(binary.arg(command).args(start).args(arguments));
        let expected = "segment-estimator: redis_password_file: failed to read secrets/nowhere: No such file";
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn start_refuses_two_passwords_without_showing_them() {
    let folder = tempfile::tempdir().unwrap();
    let url = "redis://me:hunter2@127.0.0.1:1";
    let error = refusal(binary(folder.path()).args(["--redis-url", url, "--redis-password-file", "password"]));
    let expected = r#"redis_password_file: "password" is a second password: redis_url has one already (set by "#;
    assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
}
