//! `GET /segments/{name}/users/{user_id}`: whether a user is in a segment. The users themselves are in `list`.

mod list;

use std::panic::Location;

use reqwest::StatusCode;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Client, Redis, RedisCluster, Service, TestApp, encoded, problem, settings};

fn path(segment: &str, user: &str) -> String {
    format!("/segments/{}/users/{}", encoded(segment), encoded(user))
}

/// Returns the answer at `path`. Panics with the caller's location if the response is not 200.
#[track_caller]
fn answer(app: &Client, path: &str) -> impl Future<Output = Value> {
    let (caller, path) = (Location::caller(), path.to_owned());
    async move {
        let response = app.get(&path).await;
        assert_eq!(response.status(), StatusCode::OK, "{caller}: {path}");
        response.json().await.unwrap()
    }
}

/// Returns the time `seconds` ago, in whole milliseconds.
fn seconds_ago(seconds: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() - seconds * 1_000)
}

#[tokio::test]
async fn member_returns_the_last_visit_and_the_expiry() {
    for partitions in ["1", "8"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
        let earlier = seconds_ago(3 * 86_400);
        for (seen_at, segment) in [(seconds_ago(5 * 86_400), "sports"), (earlier, "sports"), (earlier, "news")] {
            let visit = json!({ "user_id": "u1", "segment": segment, "seen_at": seen_at.to_string() });
            assert_eq!(app.post_visit(&visit).await.status(), StatusCode::NO_CONTENT);
        }
        app.record("u2", "music").await;
        let before = Timestamp::now();
        let mut found = answer(&app, "/segments/sports/users/u1").await;
        let as_of = Timestamp::from_rfc3339(found["as_of"].as_str().unwrap()).unwrap();
        assert!((before..=Timestamp::now()).contains(&as_of), "{found}");
        found.as_object_mut().unwrap().remove("as_of");
        let after = |days: i64| Timestamp::from_millis(earlier.as_millis() + days * 86_400_000).to_string();
        let expected = json!({
            "segment": "sports", "known": true, "user_id": "u1", "in_segment": true, "exact": true, "last_seen": after(0),
            "expires": after(14), "window_seconds": 1_209_600,
        });
        assert_eq!(found, expected);

        let found = answer(&app, "/segments/sports/users/u1?window=4d").await;
        assert_eq!((&found["in_segment"], &found["expires"]), (&json!(true), &json!(after(4))), "{found}");
        for (path, known) in [
            ("/segments/sports/users/u2", true),
            ("/segments/sports/users/u1?window=2d", true),
            ("/segments/sprots/users/u1", false),
        ] {
            let found = answer(&app, path).await;
            assert_eq!((&found["in_segment"], &found["known"]), (&json!(false), &json!(known)), "{found}");
            assert_eq!((&found["last_seen"], &found["expires"]), (&Value::Null, &Value::Null), "{found}");
        }
    }
}

#[tokio::test]
async fn member_takes_one_round_trip() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let calls = || (redis.calls("zscore"), redis.calls("get"), redis.calls("zrange"));
    answer(&app, "/segments/sports/users/u1").await;
    let before = calls();
    answer(&app, "/segments/sports/users/u1").await;
    assert_eq!(calls(), (before.0 + 1, before.1 + 1, before.2), "a score and the layout record");
}

#[tokio::test]
async fn member_that_expired_is_not_in_the_segment_whether_pruned_or_not() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["ZADD", "segment:sports", &seconds_ago(14 * 86_400).as_score().to_string(), "old"]);
    assert_eq!(answer(&app, "/segments/sports/users/old").await["in_segment"], false);
    redis.call::<()>(&["ZREM", "segment:sports", "old"]);
    assert_eq!(answer(&app, "/segments/sports/users/old").await["in_segment"], false);
    // As in the list of a user's segments, a key of another type has no users.
    redis.call::<()>(&["SET", "segment:broken", "x"]);
    assert_eq!(answer(&app, "/segments/broken/users/u1").await["in_segment"], false);
}

#[tokio::test]
async fn member_takes_any_name_and_rejects_invalid_ones() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for name in ["a/b", "50% & more?", "größe, {x}", "a+b", "%2F", "users"] {
        app.record(name, name).await;
        let found = answer(&app, &path(name, name)).await;
        assert_eq!((&found["segment"], &found["user_id"]), (&json!(name), &json!(name)));
        assert_eq!(found["in_segment"], true, "{found}");
    }
    for (path, field) in [
        ("/segments/%20s/users/u1", "segment"),
        ("/segments/%FF/users/u1", "segment"),
        ("/segments/sports/users/%FF", "user_id"),
        ("/segments/sports/users/u%0A", "user_id"),
        ("/segments/sports/users/u1?window=15d", "window"),
        ("/segments/sports/users/u1?at=1", "at"),
    ] {
        let document = problem(app.get(path).await, 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{document}");
    }
    redis.stop();
    problem(app.get("/segments/sports/users/u1").await, 503, "store-unavailable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_works_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    for n in 0..20 {
        let user = format!("u{n}");
        service.record(&user, "sports").await;
        assert_eq!(answer(&service, &path("sports", &user)).await["in_segment"], true);
        assert_eq!(answer(&service, &path("news", &user)).await["in_segment"], false);
    }
    assert!(service.terminate().success());
}
