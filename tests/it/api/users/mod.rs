//! `GET /users/{user_id}/segments` and `DELETE /users/{user_id}`.

mod resharding;

use std::panic::Location;

use reqwest::{Response, StatusCode};
use rstest::rstest;
use segment_estimator::config::RawSettings;
use segment_estimator::domain::{Depth, Timestamp};
use segment_estimator::store::{Batch, Partitions, Phase, Resharding};
use serde_json::{Value, json};

use crate::api::api_keys::make_key;
use crate::api::audit_log::KeyedService;
use crate::helpers::{
    Client, Proxy, Redis, RedisCluster, Service, TestApp, Upload, binary, encoded, eventually, problem, run, segment,
    settings, success, visit,
};

fn path(user: &str) -> String {
    format!("/users/{}", encoded(user))
}

async fn delete_response(app: &Client, user: &str) -> Response {
    app.request("DELETE", &path(user)).send().await.unwrap()
}

/// Deletes a user and returns the number of segments. Panics with the caller's location if the response is not 200.
#[track_caller]
fn delete(app: &Client, user: &str) -> impl Future<Output = u64> {
    let caller = Location::caller();
    async move {
        let response = delete_response(app, user).await;
        assert_eq!(response.status(), StatusCode::OK, "{caller}");
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["user_id"], user, "{caller}");
        document["segments_removed"].as_u64().unwrap()
    }
}

/// Returns the segments of a user. Panics with the caller's location if the response is not 200.
#[track_caller]
fn segments(app: &Client, user: &str) -> impl Future<Output = Vec<Value>> {
    let caller = Location::caller();
    async move {
        let response = app.get(&format!("{}/segments", path(user))).await;
        assert_eq!(response.status(), StatusCode::OK, "{caller}");
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["user_id"], user, "{caller}");
        assert_eq!(document["window_seconds"], 1_209_600, "{caller}");
        document["segments"].as_array().unwrap().clone()
    }
}

/// Returns the names of a user's segments.
#[track_caller]
fn names(app: &Client, user: &str) -> impl Future<Output = Vec<String>> {
    let segments = segments(app, user);
    async { segments.await.iter().map(|one| one["segment"].as_str().unwrap().to_owned()).collect() }
}

/// Returns the number of sorted sets that have `user`.
fn traces(redis: &Redis, user: &str) -> usize {
    redis.sets().iter().filter(|key| redis.call::<Option<f64>>(&["ZSCORE", key, user]).is_some()).count()
}

fn partitioned(partitions: &str) -> RawSettings {
    settings([("partitions", partitions)])
}

#[tokio::test]
async fn segments_returns_the_last_visit_and_the_expiry() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, partitioned(partitions)).await;
        assert_eq!(segments(&app, "u1").await, [Value::Null; 0]);
        let seen_at = Timestamp::from_millis(Timestamp::now().as_millis() - 86_400_000);
        let expires = Timestamp::from_millis(seen_at.as_millis() + 14 * 86_400_000);
        for name in ["sports", "news"] {
            let visit = json!({ "user_id": "u1", "segment": name, "seen_at": seen_at.to_string() });
            assert_eq!(app.post_visit(&visit).await.status(), StatusCode::NO_CONTENT);
        }
        app.record("u2", "music").await;
        let expected = ["news", "sports"]
            .map(|name| json!({ "segment": name, "last_seen": seen_at.to_string(), "expires": expires.to_string() }));
        assert_eq!(segments(&app, "u1").await, expected);
    }
}

#[tokio::test]
async fn segments_omits_expired_visits_and_delete_removes_them() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["ZADD", "segment:old", "1000", "u1"]);
    redis.call::<()>(&["ZADD", "segments", "0", "old"]);
    assert_eq!(names(&app, "u1").await, ["sports"]);
    assert_eq!(delete(&app, "u1").await, 2);
    assert_eq!(traces(&redis, "u1"), 0);
}

#[tokio::test]
async fn delete_removes_the_user_from_all_segments_and_nobody_else() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, partitioned(partitions)).await;
        // More segments than one batch of commands covers.
        let visits: Vec<_> = (0..1_500).map(|n| format!(r#"{{"user_id":"u1","segment":"s{n}"}}"#)).collect();
        success(app.lines_request(visits.join("\n")).send().await.unwrap()).await;
        app.record("u2", "s7").await;
        assert_eq!(app.count("s7").await, 2);
        assert_eq!(segments(&app, "u1").await.len(), 1_500);

        assert_eq!(delete(&app, "u1").await, 1_500);
        assert_eq!(app.count("s7").await, 1);
        assert_eq!(app.count("s8").await, 0);
        assert_eq!(segments(&app, "u1").await, [Value::Null; 0]);
        assert_eq!(names(&app, "u2").await, ["s7"]);
        assert_eq!(traces(&redis, "u1"), 0);

        assert_eq!(delete(&app, "u1").await, 0);
        app.record("u1", "s8").await;
        assert_eq!(names(&app, "u1").await, ["s8"]);
    }
}

#[tokio::test]
async fn segments_and_delete_take_any_user_id() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for user in ["a/b", "{p01}:x", "größe", "50% & more?", "a+b"] {
        app.record(user, "sports").await;
        assert_eq!(names(&app, user).await, ["sports"], "{user}");
        assert_eq!(delete(&app, user).await, 1, "{user}");
    }
    assert_eq!(app.count("sports").await, 0);
}

/// A slow `repartition` writes a page of members after the deletion that it read before it.
#[tokio::test(flavor = "multi_thread")]
async fn delete_during_a_resharding_is_not_undone_by_it() {
    for (from, to) in [("1", "8"), ("8", "1"), ("8", "2")] {
        let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
        let app = TestApp::spawn_with(&redis, partitioned(from)).await;
        for user in ["u1", "u2", "u3"] {
            app.record(user, "sports").await;
        }
        let store = redis.store();
        let layout = store.propagate_layout().await.unwrap();
        let target = layout.keys().sibling(Partitions::parse(to).unwrap(), None);
        let resharding = Some(Resharding { to: target, phase: Phase::Backfill });
        let layout = store.change_layout(&layout, layout.keys(), resharding).await.unwrap();
        let mut batch = Batch::default();
        for key in layout.keys().segment_keys() {
            let page = store.members(key, &segment("sports"), None).await.unwrap();
            for (user, seen_at) in page.members {
                batch.add(&visit(user.as_str(), "sports", seen_at));
            }
        }

        assert_eq!(delete(&app, "u1").await, 1);
        assert_eq!(delete(&app, "u2").await, 1);
        store.copy(&layout, target, &batch).await.unwrap();
        assert_eq!(
            store.count_in(target, &segment("sports"), Timestamp::from_millis(0), Depth::ZERO).await.unwrap(),
            3
        );
        // A visit after the deletion is kept.
        app.record("u2", "sports").await;

        let output = run(binary(folder.path()).args(["repartition", "--to", to, "--redis-url", &redis.url()]));
        assert!(output.status.success(), "{from} to {to}: {output:?}");
        assert_eq!(app.count("sports").await, 2, "{from} to {to}");
        assert_eq!(names(&app, "u1").await, [""; 0]);
        assert_eq!(names(&app, "u2").await, ["sports"]);
        assert_eq!(traces(&redis, "u1"), 0, "{from} to {to}");
        assert_eq!(redis.call::<Vec<String>>(&["KEYS", "*forgotten"]), [""; 0]);
        assert_eq!(delete(&app, "u3").await, 1);
        assert_eq!(app.count("sports").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_writes_a_tombstone_that_expires_with_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let store = redis.store();
    let layout = store.propagate_layout().await.unwrap();
    let target = layout.keys().sibling(Partitions::parse("2").unwrap(), None);
    store.change_layout(&layout, layout.keys(), Some(Resharding { to: target, phase: Phase::Backfill })).await.unwrap();
    delete(&app, "u1").await;
    let tombstones: Vec<String> = redis.call(&["KEYS", "*forgotten"]);
    let [tombstone] = tombstones.as_slice() else { panic!("{tombstones:?}") };
    let ttl: i64 = redis.call(&["TTL", tombstone]);
    assert!((1_209_000..=1_209_600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn delete_is_503_when_too_few_replicas_acknowledge() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let strict = TestApp::spawn_with(&redis, settings([("write_acks", "1")])).await;
    problem(delete_response(&strict, "u1").await, 503, "store-unavailable").await;
    // The key of the last segment is of another type.
    redis.call::<()>(&["SET", "segment:zzz", "x"]);
    redis.call::<()>(&["ZADD", "segments", "0", "zzz"]);
    problem(delete_response(&strict, "u1").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn segments_and_delete_ignore_a_key_of_another_type() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["SET", "segment:broken", "x"]);
    redis.call::<()>(&["ZADD", "segments", "0", "broken"]);
    assert_eq!(names(&app, "u1").await, ["sports"]);
    assert_eq!(delete(&app, "u1").await, 1);
}

#[tokio::test]
async fn segments_and_delete_reject_bad_parameters_and_are_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (method, path, field) in [
        ("DELETE", "/users/%20u", "user_id"),
        ("GET", "/users/%FF/segments", "user_id"),
        ("GET", "/users/u1/segments?window=1d", "window"),
        ("DELETE", "/users/u1?segment=sports", "segment"),
    ] {
        let document = problem(app.request(method, path).send().await.unwrap(), 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{document}");
    }
    redis.stop();
    problem(delete_response(&app, "u1").await, 503, "store-unavailable").await;
    problem(app.get("/users/u1/segments").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn segments_and_delete_keep_user_ids_out_of_logs_and_metrics() {
    let (mut redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-url", &redis.url(), "--log-filter", "debug"]);
    service.record("a-secret-user", "sports").await;
    redis.stop();
    for (method, path) in [("GET", "/users/a-secret-user/segments"), ("DELETE", "/users/a-secret-user")] {
        problem(service.request(method, path).send().await.unwrap(), 503, "store-unavailable").await;
    }
    redis.start_again();
    eventually("readyz is 200", async || service.status_of("/readyz").await == 200).await;
    delete(&service, "a-secret-user").await;
    let metrics = service.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("/users/{user_id}") && !metrics.contains("a-secret-user"), "{metrics}");
    let log = service.terminate_for_log();
    assert!(!log.is_empty() && !log.iter().any(|line| line.contains("a-secret-user")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_and_delete_work_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    for n in 0..30 {
        for name in ["sports", "news"] {
            service.record(&format!("u{n}"), name).await;
        }
    }
    for n in 0..20 {
        let user = format!("u{n}");
        assert_eq!(names(&service, &user).await, ["news", "sports"]);
        assert_eq!(delete(&service, &user).await, 2);
        assert_eq!(names(&service, &user).await, [""; 0]);
    }
    assert_eq!((service.count("sports").await, service.count("news").await), (10, 10));
    assert!(service.terminate().success());
}

/// Returns the message, the request id, the caller and the status of each line of `log` about a deletion.
fn deletions(log: &[String]) -> Vec<(String, String, Value, Value)> {
    let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_deletion = |message: &str| message.contains("a user") || message.contains("a segment");
    let events = events.filter(|event| is_deletion(event["message"].as_str().unwrap()));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events
        .map(|event| {
            (text(&event["message"]), text(&event["request_id"]), event["by"].clone(), event["status"].clone())
        })
        .collect()
}

#[tokio::test]
async fn delete_logs_the_caller_if_known_and_never_the_user() {
    let service = KeyedService::start([("officer", "users:delete"), ("reader", "users:read")]);
    service.delete("/users/secret-user", "?force=1", 200).await;
    let unnamed = service.delete_without_id("/users/secret-user").await;

    let log = service.terminate_for_log();
    let line = |message: &str, id: &str, by: Value, status: u16| (message.to_owned(), id.to_owned(), by, json!(status));
    let expected = [
        line("deleted a user", "first", json!("officer"), 200),
        line("refused to delete a user", "second", json!("officer"), 422),
        line("refused to delete a user", "third", json!("reader"), 403),
        line("deleted a user", &unnamed, json!("officer"), 200),
    ];
    assert_eq!(deletions(&log), expected);
    assert!(!log.iter().any(|line| line.contains("secret-user")), "{log:#?}");
}

#[rstest]
#[case::user("/users/secret-user", "failed to delete a user")]
#[case::user_from_a_segment("/segments/sports/users/secret-user", "failed to remove a user from a segment")]
#[case::segment("/segments/sports", "failed to delete a segment")]
#[tokio::test]
async fn delete_logs_the_caller_when_the_service_is_overloaded(#[case] path: &str, #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let officer = make_key(&keys, "officer", "segments:write,segments:delete,users:delete");
    let service = Service::start(folder.path(), &["--api-keys-file", keys.to_str().unwrap(), "--max-requests", "1"]);
    let delete =
        |key: &str, id: &str| service.request("DELETE", path).bearer_auth(key).header("x-request-id", id).send();
    let mut stream = Upload::begin_with_token(service.address, &officer).await;
    stream.send(b"{\"user_id\":\"u1\",\"segment\":\"sports\"}\n").await;
    eventually("the stream is in flight", async || delete(&officer, "probe").await.unwrap().status() == 503).await;
    problem(delete(&officer, "refused").await.unwrap(), 503, "overloaded").await;
    problem(delete("sek_guessed", "guessed").await.unwrap(), 401, "unauthorized").await;
    assert_eq!(stream.end().await.0, 200);
    let log = service.terminate_for_log();
    let lines: Vec<_> = deletions(&log).into_iter().filter(|(_, id, ..)| id != "probe").collect();
    assert_eq!(lines, [(message.to_owned(), "refused".to_owned(), json!("officer"), json!(503))]);
}

// The proxy needs a thread while the test waits for the start of the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn delete_logs_failures_and_timeouts_too() {
    let mut redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(
        folder.path(),
        &[
            "--redis-url",
            &proxy.url(),
            "--request-timeout",
            "300ms",
            "--redis-timeout",
            "1h",
            "--redis-connect-timeout",
            "1h",
        ],
    );
    let request = || service.request("DELETE", "/users/secret-user");
    proxy.hold_replies();
    let late = request().header("x-request-id", "late").send().await.unwrap();
    problem(late, 503, "request-timeout").await;
    proxy.release_replies();
    assert_eq!(delete(&service, "secret-user").await, 0);
    redis.stop();
    let failed = request().header("x-request-id", "failed").send().await.unwrap();
    assert_eq!(failed.status(), 503);

    let log = service.terminate_for_log();
    let lines = deletions(&log);
    let given_up = "the deletion of a user was aborted; the user may or may not be deleted";
    assert_eq!((lines[0].0.as_str(), lines[0].1.as_str()), (given_up, "late"), "{lines:?}");
    assert_eq!(lines[1].0, "deleted a user", "{lines:?}");
    assert!(lines[2].1 == "failed" && lines.len() == 3, "{lines:?}");
    assert!(!log.iter().any(|line| line.contains("secret-user")), "{log:#?}");
}
