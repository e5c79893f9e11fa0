//! Redis is away, hangs, or refuses: answers are 503 until it is well, and nothing has to be restarted.

use std::time::Duration;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::helpers::{Client, Fault, Proxy, Redis, Service, TestApp, eventually, free_port, kill, problem, settings};

async fn post(app: &TestApp) -> StatusCode {
    app.post_visit(&json!({ "user_id": "u104010", "segment": "sports" })).await.status()
}

/// The kinds of failure of Redis that `/metrics` has counted.
async fn kinds_of_failure(client: &Client) -> Vec<String> {
    let metrics = client.get("/metrics").await.text().await.unwrap();
    let counted = metrics.lines().filter_map(|line| line.strip_prefix("estimator_redis_errors_total{kind=\""));
    let counted = counted.filter_map(|line| line.split_once("\"} ")).filter(|(_, count)| *count != "0");
    counted.map(|(kind, _)| kind.to_owned()).collect()
}

#[tokio::test]
async fn eviction_is_warned_of_at_the_start_and_counted() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    for n in 0..200 {
        redis.call::<()>(&["SET", &format!("foreign:{n}"), &"x".repeat(10_000)]);
    }
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "2mb"]);
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    let stats: String = redis.call(&["INFO", "stats"]);
    let evicted = stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap();
    assert_ne!(evicted, "0");
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    eventually("the number of evicted keys", async || {
        service
            .get("/metrics")
            .await
            .text()
            .await
            .unwrap()
            .contains(&format!("estimator_redis_evicted_keys {evicted}\n"))
    })
    .await;
    assert_eq!(service.status_of("/readyz").await, 200);
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    let expected = "Redis evicts whole segments when its memory is full, which makes counts wrong (allkeys-lru)";
    assert!(warnings.len() == 1 && warnings[0].contains(expected), "{log:#?}");
}

#[tokio::test]
async fn redis_stopped_and_restarted_is_204_503_204() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    redis.stop();
    problem(app.post_visit(&json!({ "user_id": "u104011", "segment": "sports" })).await, 503, "store-unavailable")
        .await;
    problem(app.get("/segments/sports/count").await, 503, "store-unavailable").await;
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(app.status_of("/healthz").await, 200);

    redis.start_again();
    eventually("writes succeed again", async || post(&app).await == StatusCode::NO_CONTENT).await;
    assert_eq!(app.status_of("/readyz").await, 200);
    assert_eq!(app.count("sports").await, 1, "what was acknowledged is there, what was refused is not");
}

#[tokio::test]
async fn a_restart_between_two_requests_costs_no_error() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for _ in 0..3 {
        app.record("u104010", "sports").await;
        redis.stop();
        redis.start_again();
        assert_eq!(app.count("sports").await, 1);
    }
}

#[tokio::test]
async fn the_service_starts_without_redis_and_finds_it_when_it_comes() {
    let mut redis = Redis::start();
    redis.stop();
    let app = TestApp::spawn(&redis).await;
    assert_eq!(app.status_of("/healthz").await, 200);
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(post(&app).await, 503);

    redis.start_again();
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    eventually("visits are taken", async || post(&app).await == StatusCode::NO_CONTENT).await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn redis_is_reached_over_tcp_too() {
    let port = free_port();
    let app = TestApp::spawn_on(format!("redis://127.0.0.1:{port}"), settings([])).await;
    assert_eq!(app.status_of("/readyz").await, 503);

    let _redis = Redis::start_with(&["--port", &port]);
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn a_redis_that_hangs_is_503_at_the_deadline_and_recovers() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("redis_timeout", "300ms")])).await;
    app.record("u104010", "sports").await;

    kill("-STOP", redis.pid());
    assert_eq!(post(&app).await, 503);
    assert_eq!(app.status_of("/segments/sports/count").await, 503);
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(app.status_of("/healthz").await, 200);

    kill("-CONT", redis.pid());
    eventually("writes succeed again", async || post(&app).await == StatusCode::NO_CONTENT).await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn a_connection_that_went_dead_is_replaced() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let short = settings([("redis_timeout", "300ms")]);
    let app = TestApp::spawn_on(proxy.url(), short).await;
    app.record("u104010", "sports").await;

    proxy.inject(Fault::HalfOpen);
    assert_eq!(app.status_of("/segments/sports/count").await, 503);
    assert_eq!(app.count("sports").await, 1);
}

/// How many connections to Redis the service has made.
async fn connects(app: &TestApp) -> u64 {
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let made = metrics.lines().find_map(|line| line.strip_prefix(r#"estimator_redis_connects_total{outcome="done"} "#));
    made.unwrap().parse().unwrap()
}

/// A service on the Redis behind `proxy`, with a connection for each of visits, batches and counts.
async fn app_with_all_connections(proxy: &Proxy) -> TestApp {
    let app = TestApp::spawn_on(proxy.url(), settings([])).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.post_array(&json!([{ "user_id": "u104011", "segment": "sports" }])).await.status(), 200);
    assert_eq!(app.count("sports").await, 2);
    app
}

/// The first of each, none of which may find its connection dead.
async fn assert_all_are_taken_at_once(app: &TestApp) {
    assert_eq!(post(app).await, 204);
    assert_eq!(app.post_array(&json!([{ "user_id": "u104012", "segment": "sports" }])).await.status(), 200);
    assert_eq!(app.count("sports").await, 3);
}

#[tokio::test]
async fn heartbeat_replaces_idle_connections_that_died_before_a_request_needs_them() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let app = app_with_all_connections(&proxy).await;
    let before = connects(&app).await;

    proxy.inject(Fault::HalfOpen);
    eventually("all three are made again", async || connects(&app).await >= before + 3).await;
    assert_all_are_taken_at_once(&app).await;
}

#[tokio::test]
async fn heartbeat_keeps_idle_connections_that_the_network_would_forget() {
    const FORGETS_AFTER: Duration = Duration::from_secs(5);
    let redis = Redis::start();
    let proxy = Proxy::start_with_idle_limit(&redis, FORGETS_AFTER).await;
    let app = app_with_all_connections(&proxy).await;
    // Nothing but time makes a connection idle.
    tokio::time::sleep(FORGETS_AFTER + Duration::from_secs(1)).await;
    assert_all_are_taken_at_once(&app).await;
}

/// In its table of sockets Linux shows which timer runs for each: 2 is that of keepalive.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn keepalive_is_on_for_every_connection_to_redis() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let _app = app_with_all_connections(&proxy).await;
    let port = format!(":{:04X}", proxy.address.port());
    let probed = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[2].ends_with(&port) && row.get(5).is_some_and(|timer| timer.starts_with("02:"))).count()
    };
    eventually("the kernel probes all three", async || probed() == 3).await;
}

#[tokio::test]
async fn a_connection_to_a_replica_is_replaced() {
    let (old, new) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&old).await;
    let app = TestApp::spawn_on(proxy.url(), settings([])).await;
    app.record("u104010", "sports").await;

    // A failover: the old primary lives on as a replica, and its address leads to the new one.
    old.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    proxy.redirect_to(&new);
    assert_eq!(post(&app).await, 503);
    assert_eq!(post(&app).await, 204);
    assert_eq!(new.call::<u64>(&["ZCARD", "segment:sports"]), 1);
}

/// A service that gets no visits hears of it by its readiness probe.
#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_not_ready_and_its_counts_are_not_believed() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    problem(app.get("/readyz").await, 503, "store-unavailable").await;
    problem(app.get("/segments/sports/count").await, 503, "store-unavailable").await;

    redis.call::<()>(&["REPLICAOF", "NO", "ONE"]);
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn callers_that_give_up_do_not_keep_a_slow_redis_away() {
    let redis = Redis::start();
    let proxy = Proxy::start_slow(&redis, Duration::from_millis(400)).await;
    let impatient = settings([("redis_timeout", "100ms")]);
    let app = TestApp::spawn_on(proxy.url(), impatient).await;
    assert_eq!(post(&app).await, 503);
    eventually("connected in spite of them", async || post(&app).await == StatusCode::NO_CONTENT).await;
}

#[tokio::test]
async fn a_wrong_password_is_503_until_it_is_right() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "requirepass", "right"]);
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-url", &format!("{}?pass=wrong", redis.url())]);
    assert_eq!(service.status_of("/readyz").await, 503);
    for _ in 0..50 {
        let document: Value = service.get("/segments/sports/count").await.json().await.unwrap();
        assert!(!document.to_string().contains("wrong"), "{document}");
    }
    assert_eq!(kinds_of_failure(&service).await, ["wrong_password"]);

    let mut admin = redis::Client::open(format!("{}?pass=right", redis.url())).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("wrong").exec(&mut admin).unwrap();
    eventually("ready", async || service.status_of("/readyz").await == 200).await;
    service.record("u104010", "sports").await;
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("it refused this user or password"), "{log:#?}");
}

#[rstest]
#[case::no_password(&["CONFIG", "SET", "requirepass", "right"], "", "no_auth")]
#[case::no_password_for_a_database(&["CONFIG", "SET", "requirepass", "right"], "?db=3", "no_auth")]
#[case::a_user_that_is_off(&["ACL", "SETUSER", "me", "off", ">right", "+@all"], "?user=me&pass=right", "wrong_password")]
#[case::nobody_known(&["PING"], "?user=me&pass=right", "wrong_password")]
#[case::a_password_where_none_is_wanted(&["PING"], "?pass=right", "wrong_password")]
#[case::a_user_without_databases(
    &["ACL", "SETUSER", "me", "on", ">right", "+@all", "-select"], "?user=me&pass=right&db=3", "no_permission"
)]
#[case::a_database_that_is_not_there(&["PING"], "?db=99", "connect")]
#[tokio::test]
async fn why_redis_does_not_let_us_in_has_a_label(#[case] setup: &[&str], #[case] login: &str, #[case] kind: &str) {
    let redis = Redis::start();
    redis.call::<redis::Value>(setup);
    let app = TestApp::spawn_on(format!("{}{login}", redis.url()), settings([])).await;
    assert_eq!(post(&app).await, 503);
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(kinds_of_failure(&app).await, [kind]);
}

#[tokio::test]
async fn a_redis_without_room_for_another_client_is_no_wrong_password() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "maxclients", "1"]);
    let other = redis.monitor();
    let app = TestApp::spawn_on(format!("{}?pass=right", redis.url()), settings([])).await;
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(kinds_of_failure(&app).await, ["connect"]);
    drop(other);
}

#[tokio::test]
async fn a_redis_that_is_busy_when_it_is_met_is_told_as_busy() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "lua-time-limit", "1"]);
    let connect = || redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut connection = connect();
    let script =
        tokio::task::spawn_blocking(move || redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection));
    let is_busy = || redis::cmd("PING").exec(&mut connect()).is_err_and(|error| error.code() == Some("BUSY"));
    eventually("Redis is busy", async || is_busy()).await;

    let app = TestApp::spawn(&redis).await;
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(kinds_of_failure(&app).await, ["busy"]);
    redis::cmd("SCRIPT").arg("KILL").exec(&mut connect()).unwrap();
    assert!(script.await.unwrap().is_err());
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
}

#[tokio::test]
async fn a_redis_that_refuses_writes_still_counts() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(post(&app).await, 503);
    redis.call::<()>(&["REPLICAOF", "NO", "ONE"]);

    assert_eq!(post(&app).await, 204);
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(app.post_visit(&json!({ "user_id": "u104011", "segment": "sports" })).await.status(), 503);
    assert_eq!(app.count("sports").await, 1);
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    app.record("u104011", "sports").await;
    assert_eq!(app.count("sports").await, 2);
}
