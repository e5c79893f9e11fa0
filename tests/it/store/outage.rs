//! Redis is down, hangs, or refuses commands: answers are 503 until it recovers, without a restart of the service.

use std::time::Duration;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::helpers::{Client, Fault, Proxy, Redis, Service, TestApp, eventually, free_port, kill, problem, settings};

async fn post(app: &TestApp) -> StatusCode {
    app.post_visit(&json!({ "user_id": "u104010", "segment": "sports" })).await.status()
}

/// Returns the kinds of Redis errors that `/metrics` has counted.
async fn error_kinds(client: &Client) -> Vec<String> {
    let metrics = client.get("/metrics").await.text().await.unwrap();
    let counted = metrics.lines().filter_map(|line| line.strip_prefix("estimator_redis_errors_total{kind=\""));
    let counted = counted.filter_map(|line| line.split_once("\"} ")).filter(|(_, count)| *count != "0");
    counted.map(|(kind, _)| kind.to_owned()).collect()
}

#[tokio::test]
async fn start_warns_of_eviction_and_metrics_count_evicted_keys() {
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

/// There may be no visits for hours.
#[rstest]
#[case::readonly("no", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"])]
#[case::cluster_down("yes", &["CLUSTER", "DELSLOTS", "0"], &["CLUSTER", "ADDSLOTS", "0"])]
#[tokio::test]
async fn recovery_is_logged_without_another_visit(
    #[case] is_cluster: &str,
    #[case] begin: &[&str],
    #[case] end: &[&str],
) {
    let (port, cluster_port) = (free_port(), free_port());
    let arguments = ["--port", &port, "--cluster-port", &cluster_port, "--cluster-enabled", is_cluster];
    let redis = Redis::start_with(&arguments);
    if is_cluster == "yes" {
        redis.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let is_up = || redis.call::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        eventually("the cluster is up", async || is_up()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    let visit = json!({ "user_id": "u104010", "segment": "sports" });
    assert_eq!(service.post_visit(&visit).await.status(), 204);

    redis.call::<()>(begin);
    eventually("a visit is refused", async || service.post_visit(&visit).await.status() == 503).await;
    redis.call::<()>(end);
    eventually("the recovery is logged", async || service.has_logged("Redis answers again")).await;
    service.record("u104010", "sports").await;
}

#[tokio::test]
async fn record_is_204_503_204_when_redis_stops_and_restarts() {
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
    assert_eq!(app.count("sports").await, 1, "Redis has the acknowledged visit and not the refused one");
}

#[tokio::test]
async fn restart_between_two_requests_causes_no_error() {
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
async fn start_without_redis_connects_when_redis_starts() {
    let mut redis = Redis::start();
    redis.stop();
    let app = TestApp::spawn(&redis).await;
    assert_eq!(app.status_of("/healthz").await, 200);
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(post(&app).await, 503);

    redis.start_again();
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    eventually("visits are accepted", async || post(&app).await == StatusCode::NO_CONTENT).await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn connect_works_over_tcp() {
    let port = free_port();
    let app = TestApp::spawn_on(format!("redis://127.0.0.1:{port}"), settings([])).await;
    assert_eq!(app.status_of("/readyz").await, 503);

    let _redis = Redis::start_with(&["--port", &port]);
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn requests_are_503_at_the_deadline_while_redis_hangs() {
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
async fn timeout_replaces_a_dead_connection() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let short = settings([("redis_timeout", "300ms")]);
    let app = TestApp::spawn_on(proxy.url(), short).await;
    app.record("u104010", "sports").await;

    proxy.inject(Fault::HalfOpen);
    assert_eq!(app.status_of("/segments/sports/count").await, 503);
    assert_eq!(app.count("sports").await, 1);
}

/// Returns the number of connections to Redis that the service has made.
async fn connects(app: &TestApp) -> u64 {
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let made = metrics.lines().find_map(|line| line.strip_prefix(r#"estimator_redis_connects_total{outcome="done"} "#));
    made.unwrap().parse().unwrap()
}

/// Starts a service on the Redis behind `proxy`, and connects for visits, batches and counts.
async fn app_with_all_connections(proxy: &Proxy) -> TestApp {
    let app = TestApp::spawn_on(proxy.url(), settings([])).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.post_array(&json!([{ "user_id": "u104011", "segment": "sports" }])).await.status(), 200);
    assert_eq!(app.count("sports").await, 2);
    app
}

/// Asserts that a visit, a batch and a count succeed at the first attempt.
async fn assert_all_succeed_at_once(app: &TestApp) {
    assert_eq!(post(app).await, 204);
    assert_eq!(app.post_array(&json!([{ "user_id": "u104012", "segment": "sports" }])).await.status(), 200);
    assert_eq!(app.count("sports").await, 3);
}

#[tokio::test]
async fn heartbeat_replaces_idle_connections_that_died() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let app = app_with_all_connections(&proxy).await;
    let before = connects(&app).await;

    proxy.inject(Fault::HalfOpen);
    eventually("all three reconnect", async || connects(&app).await >= before + 3).await;
    assert_all_succeed_at_once(&app).await;
}

#[tokio::test]
async fn heartbeat_keeps_idle_connections_from_being_dropped_by_the_network() {
    const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
    let redis = Redis::start();
    let proxy = Proxy::start_with_idle_limit(&redis, IDLE_TIMEOUT).await;
    let app = app_with_all_connections(&proxy).await;
    // A connection becomes idle only with time.
    tokio::time::sleep(IDLE_TIMEOUT + Duration::from_secs(1)).await;
    assert_all_succeed_at_once(&app).await;
}

/// Linux shows the active timer of each socket in its table; 2 is the keepalive timer.
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
async fn readonly_replaces_the_connection() {
    let (old, new) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&old).await;
    let app = TestApp::spawn_on(proxy.url(), settings([])).await;
    app.record("u104010", "sports").await;

    // A failover: the old primary becomes a replica, and its address leads to the new one.
    old.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    proxy.redirect_to(&new);
    assert_eq!(post(&app).await, 503);
    assert_eq!(post(&app).await, 204);
    assert_eq!(new.call::<u64>(&["ZCARD", "segment:sports"]), 1);
}

/// A service without visits detects it by its readiness probe.
#[tokio::test]
async fn count_and_readyz_are_503_while_the_primary_is_a_replica() {
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
async fn connect_completes_after_its_callers_time_out() {
    let redis = Redis::start();
    let proxy = Proxy::start_slow(&redis, Duration::from_millis(400)).await;
    let short_timeout = settings([("redis_timeout", "100ms")]);
    let app = TestApp::spawn_on(proxy.url(), short_timeout).await;
    assert_eq!(post(&app).await, 503);
    eventually("connected in spite of the timeouts", async || post(&app).await == StatusCode::NO_CONTENT).await;
}

#[tokio::test]
async fn requests_are_503_until_the_password_is_right() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "requirepass", "right"]);
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-url", &format!("{}?pass=wrong", redis.url())]);
    assert_eq!(service.status_of("/readyz").await, 503);
    for _ in 0..50 {
        let document: Value = service.get("/segments/sports/count").await.json().await.unwrap();
        assert!(!document.to_string().contains("wrong"), "{document}");
    }
    assert_eq!(error_kinds(&service).await, ["wrong_password"]);

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
#[case::no_password_with_a_database(&["CONFIG", "SET", "requirepass", "right"], "?db=3", "no_auth")]
#[case::disabled_user(&["ACL", "SETUSER", "me", "off", ">right", "+@all"], "?user=me&pass=right", "wrong_password")]
#[case::unknown_user(&["PING"], "?user=me&pass=right", "wrong_password")]
#[case::unexpected_password(&["PING"], "?pass=right", "wrong_password")]
#[case::select_forbidden(
    &["ACL", "SETUSER", "me", "on", ">right", "+@all", "-select"], "?user=me&pass=right&db=3", "no_permission"
)]
#[case::unknown_database(&["PING"], "?db=99", "connect")]
#[tokio::test]
async fn metrics_label_why_redis_refuses_the_login(#[case] setup: &[&str], #[case] login: &str, #[case] kind: &str) {
    let redis = Redis::start();
    redis.call::<redis::Value>(setup);
    let app = TestApp::spawn_on(format!("{}{login}", redis.url()), settings([])).await;
    assert_eq!(post(&app).await, 503);
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(error_kinds(&app).await, [kind]);
}

#[tokio::test]
async fn metrics_label_too_many_clients_as_connect() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "maxclients", "1"]);
    let other = redis.monitor();
    let app = TestApp::spawn_on(format!("{}?pass=right", redis.url()), settings([])).await;
    assert_eq!(app.status_of("/readyz").await, 503);
    assert_eq!(error_kinds(&app).await, ["connect"]);
    drop(other);
}

#[tokio::test]
async fn metrics_label_a_busy_redis_as_busy() {
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
    assert_eq!(error_kinds(&app).await, ["busy"]);
    redis::cmd("SCRIPT").arg("KILL").exec(&mut connect()).unwrap();
    assert!(script.await.unwrap().is_err());
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
}

#[tokio::test]
async fn count_succeeds_while_redis_refuses_writes() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = app.post_visit(&json!({ "user_id": "u104010", "segment": "sports" })).await;
    let document = problem(refused, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("Redis is a replica now"), "{document}");
    redis.call::<()>(&["REPLICAOF", "NO", "ONE"]);

    assert_eq!(post(&app).await, 204);
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(app.post_visit(&json!({ "user_id": "u104011", "segment": "sports" })).await.status(), 503);
    assert_eq!(app.count("sports").await, 1);
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    app.record("u104011", "sports").await;
    assert_eq!(app.count("sports").await, 2);
}
