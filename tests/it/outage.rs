//! Redis is away, hangs, or refuses: answers are 503 until it is well, and nothing has to be restarted.

use std::time::Duration;

use reqwest::StatusCode;
use segment_estimator::settings::Layer;
use serde_json::{Value, json};

use crate::helpers::{Blow, Proxy, Redis, TestApp, eventually, free_port, kill, problem};

async fn post(app: &TestApp) -> StatusCode {
    app.post_visit(&json!({ "user_id": "u104010", "segment": "sports" })).await.status()
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
    app.record("u104010", "sports").await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn redis_is_reached_over_tcp_too() {
    let port = free_port();
    let app = TestApp::spawn_on(format!("redis://127.0.0.1:{port}"), Layer::default()).await;
    assert_eq!(app.status_of("/readyz").await, 503);

    let _redis = Redis::start_with(&["--port", &port]);
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn a_redis_that_hangs_is_503_at_the_deadline_and_recovers() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, Layer { redis_timeout: Some("300ms".to_owned()), ..Layer::default() }).await;
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
    let short = Layer { redis_timeout: Some("300ms".to_owned()), ..Layer::default() };
    let app = TestApp::spawn_on(proxy.url(), short).await;
    app.record("u104010", "sports").await;

    proxy.strike(Blow::Deaden);
    assert_eq!(app.status_of("/segments/sports/count").await, 503);
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn a_connection_to_a_replica_is_replaced() {
    let (old, new) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&old).await;
    let app = TestApp::spawn_on(proxy.url(), Layer::default()).await;
    app.record("u104010", "sports").await;

    // A failover: the old primary lives on as a replica, and its address leads to the new one.
    old.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    proxy.lead_to(&new);
    assert_eq!(post(&app).await, 503);
    assert_eq!(post(&app).await, 204);
    assert_eq!(new.call::<u64>(&["ZCARD", "segment:sports"]), 1);
}

#[tokio::test]
async fn callers_that_give_up_do_not_keep_a_slow_redis_away() {
    let redis = Redis::start();
    let proxy = Proxy::start_slow(&redis, Duration::from_millis(400)).await;
    let impatient = Layer { redis_timeout: Some("100ms".to_owned()), ..Layer::default() };
    let app = TestApp::spawn_on(proxy.url(), impatient).await;
    assert_eq!(post(&app).await, 503);
    eventually("connected in spite of them", async || post(&app).await == StatusCode::NO_CONTENT).await;
}

#[tokio::test]
async fn a_wrong_password_is_503_until_it_is_right() {
    let redis = Redis::start();
    redis.call::<()>(&["CONFIG", "SET", "requirepass", "right"]);
    let app = TestApp::spawn_on(format!("{}?pass=wrong", redis.url()), Layer::default()).await;
    assert_eq!(app.status_of("/readyz").await, 503);
    let document: Value = app.get("/segments/sports/count").await.json().await.unwrap();
    assert!(!document.to_string().contains("wrong"), "{document}");

    let mut admin = redis::Client::open(format!("{}?pass=right", redis.url())).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("wrong").exec(&mut admin).unwrap();
    eventually("ready", async || app.status_of("/readyz").await == 200).await;
    app.record("u104010", "sports").await;
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
