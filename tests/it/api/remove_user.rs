//! `DELETE /segments/{name}/users/{user_id}`.

use reqwest::{Response, StatusCode};
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use super::audit_log::KeyedService;
use crate::helpers::{Client, Redis, RedisCluster, Service, TestApp, encoded, problem, settings};

async fn remove(app: &Client, segment: &str, user: &str, query: &str) -> Response {
    let path = format!("/segments/{}/users/{}{query}", encoded(segment), encoded(user));
    app.request("DELETE", &path).send().await.unwrap()
}

async fn record_at(app: &Client, user: &str, segment: &str, seen_at: Timestamp) {
    let visit = json!({ "user_id": user, "segment": segment, "seen_at": seen_at.to_string() });
    assert_eq!(app.post_visit(&visit).await.status(), StatusCode::NO_CONTENT);
}

/// Returns the present plus `seconds`.
fn now_plus(seconds: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + seconds * 1_000)
}

fn removed_at(time: Timestamp) -> String {
    format!("?removed_at={time}")
}

#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[tokio::test]
async fn remove_takes_the_user_out_of_this_segment_alone_and_repeats_are_harmless(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    for (user, segment) in [("u1", "sports"), ("u2", "sports"), ("u1", "news"), ("a/b", "größe/x"), ("u1", "größe/x")]
    {
        app.record(user, segment).await;
    }
    for _ in 0..2 {
        let removed = remove(&app, "sports", "u1", "").await;
        assert_eq!(removed.status(), StatusCode::NO_CONTENT);
        assert_eq!(removed.bytes().await.unwrap(), "");
        assert_eq!((app.count("sports").await, app.count("news").await), (1, 1));
    }
    assert_eq!(remove(&app, "größe/x", "a/b", "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(app.count("größe/x").await, 1);
    assert_eq!(remove(&app, "nowhere", "nobody", "").await.status(), StatusCode::NO_CONTENT);
    app.record("u1", "sports").await;
    assert_eq!(app.count("sports").await, 2);
}

#[tokio::test]
async fn remove_keeps_a_visit_after_removed_at() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let seen_at = now_plus(-60);
    for (offset, expected) in [(-1, 1), (0, 0), (1, 0)] {
        record_at(&app, "u1", "sports", seen_at).await;
        let at = Timestamp::from_millis(seen_at.as_millis() + offset);
        assert_eq!(remove(&app, "sports", "u1", &removed_at(at)).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(app.count("sports").await, expected, "{offset} ms after the visit");
    }
    // Unix seconds, and a time before now.
    for query in [format!("?removed_at={}", seen_at.as_score()), "?removed_at=-1s".to_owned()] {
        record_at(&app, "u1", "sports", seen_at).await;
        assert_eq!(remove(&app, "sports", "u1", &query).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(app.count("sports").await, 0, "{query}");
    }
}

/// As for a visit, a sender's clock may be ahead by five minutes.
#[tokio::test]
async fn remove_clamps_a_removed_at_that_is_slightly_ahead_and_refuses_a_later_one() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let document =
        problem(remove(&app, "sports", "u1", &removed_at(now_plus(400))).await, 422, "invalid-request").await;
    assert_eq!(document["errors"][0]["field"], "removed_at");
    let detail = document["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("more than 5 minutes ahead of this service's clock"), "{detail}");
    assert_eq!(app.count("sports").await, 1);
    // The score is later than now, as after a step of the clock. It is not later than the given time.
    redis.call::<()>(&["ZADD", "segment:sports", &now_plus(60).as_score().to_string(), "u2"]);
    for user in ["u1", "u2"] {
        assert_eq!(remove(&app, "sports", user, &removed_at(now_plus(200))).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(app.count("sports").await, 1, "the removal counts as now");
}

#[tokio::test]
async fn remove_rejects_bad_parameters_and_is_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    for (path, field) in [
        ("/segments/%20s/users/u1", "segment"),
        ("/segments/sports/users/%20u", "user_id"),
        ("/segments/%FF/users/u1", "segment"),
        ("/segments/sports/users/%FF", "user_id"),
        ("/segments/sports/users/u1?removed_at=soon", "removed_at"),
        ("/segments/sports/users/u1?removed_at=1795341600000", "removed_at"),
        ("/segments/sports/users/u1?removed_at=1&removed_at=2", "removed_at"),
        ("/segments/sports/users/u1?seen_at=1", "seen_at"),
    ] {
        let document = problem(app.request("DELETE", path).send().await.unwrap(), 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{path}: {document}");
    }
    assert_eq!(app.count("sports").await, 1);
    redis.stop();
    problem(remove(&app, "sports", "u1", "").await, 503, "store-unavailable").await;
}

#[rstest]
#[case::unconditional("")]
#[case::conditional("?removed_at=-1s")]
#[tokio::test]
async fn remove_keeps_a_key_of_another_program_and_names_the_problem(#[case] query: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "news").await;
    redis.call::<()>(&["SET", "segment:sports", "theirs"]);
    let document = problem(remove(&app, "sports", "u1", query).await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("a value of another program"), "{document}");
    assert_eq!(redis.call::<String>(&["GET", "segment:sports"]), "theirs");
}

#[rstest]
#[case::unconditional("")]
#[case::conditional("?removed_at=-1s")]
#[tokio::test]
async fn remove_is_503_when_too_few_replicas_acknowledge(#[case] query: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_at(&app, "u1", "sports", now_plus(-60)).await;
    let strict = TestApp::spawn_with(&redis, settings([("write_acks", "1"), ("redis_timeout", "300ms")])).await;
    problem(remove(&strict, "sports", "u1", query).await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn remove_needs_users_delete_and_logs_the_segment_but_never_the_user() {
    let scopes = [("officer", "users:delete"), ("other", "segments:write,segments:read,users:read")];
    let service = KeyedService::start(scopes);
    let visit = service.request("POST", "/segments", 1);
    let visit = visit.json(&json!({ "user_id": "secret-user", "segment": "sports" })).send().await.unwrap();
    assert_eq!(visit.status(), StatusCode::NO_CONTENT);
    let path = "/segments/sports/users/secret-user";
    let early = service.request("DELETE", &format!("{path}?removed_at=-1h"), 0).header("x-request-id", "seen-later");
    assert_eq!(early.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    service.delete(path, "?removed_at=soon", 204).await;
    let repeated = service.request("DELETE", path, 0).header("x-request-id", "repeated");
    assert_eq!(repeated.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let log = service.terminate_for_log();
    let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = events.filter(|event| event["message"].as_str().unwrap().contains("a user from a segment"));
    let found: Vec<_> = events
        .map(|event| {
            ["message", "request_id", "by", "segment", "status", "removed"].map(|member| event[member].clone())
        })
        .collect();
    let line = |message: &str, id: &str, by: &str, status: u16, removed: Value| {
        [json!(message), json!(id), json!(by), json!("sports"), json!(status), removed]
    };
    let completed = "completed a request to remove a user from a segment";
    let refused = "refused to remove a user from a segment";
    let expected = [
        line(completed, "seen-later", "officer", 204, json!(false)),
        line(completed, "first", "officer", 204, json!(true)),
        line(refused, "second", "officer", 422, Value::Null),
        line(refused, "third", "other", 403, Value::Null),
        line(completed, "repeated", "officer", 204, json!(false)),
    ];
    assert_eq!(found, expected);
    assert!(!log.iter().any(|line| line.contains("secret-user")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remove_works_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    for n in 0..30 {
        service.record(&format!("u{n}"), "sports").await;
    }
    for n in 0..20 {
        let query = if n % 2 == 0 { String::new() } else { removed_at(now_plus(1)) };
        assert_eq!(remove(&service, "sports", &format!("u{n}"), &query).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(service.count("sports").await, 10);
    assert!(service.terminate().success());
}
