//! What is kept of a user, and having it deleted: also while the data moves.

mod moves;

use reqwest::{Response, StatusCode};
use segment_estimator::config::RawSettings;
use segment_estimator::domain::Timestamp;
use segment_estimator::store::{Batch, Partitions, Phase, Resharding};
use serde_json::{Value, json};

use crate::helpers::{
    Client, Proxy, Redis, RedisCluster, Service, TestApp, binary, eventually, problem, run, segment, settings, visit,
};

fn path(user: &str) -> String {
    let user: String = user.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/users/{user}")
}

async fn delete(app: &Client, user: &str) -> Response {
    app.request("DELETE", &path(user)).send().await.unwrap()
}

/// Has `user` forgotten, and gives from how many segments.
async fn forget(app: &Client, user: &str) -> u64 {
    let response = delete(app, user).await;
    assert_eq!(response.status(), StatusCode::OK);
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["user_id"], user);
    document["segments_removed"].as_u64().unwrap()
}

async fn segments(app: &Client, user: &str) -> Vec<Value> {
    let response = app.get(&format!("{}/segments", path(user))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let document: Value = response.json().await.unwrap();
    assert_eq!((&document["user_id"], &document["window_seconds"]), (&json!(user), &json!(1_209_600)));
    document["segments"].as_array().unwrap().clone()
}

async fn names(app: &Client, user: &str) -> Vec<String> {
    segments(app, user).await.iter().map(|one| one["segment"].as_str().unwrap().to_owned()).collect()
}

/// How often `user` stands in Redis, in whatever key.
fn traces(redis: &Redis, user: &str) -> usize {
    redis.sets().iter().filter(|key| redis.call::<Option<f64>>(&["ZSCORE", key, user]).is_some()).count()
}

fn partitioned(partitions: &str) -> RawSettings {
    settings([("partitions", partitions)])
}

#[tokio::test]
async fn a_users_segments_are_told_with_the_last_visit_and_the_expiry() {
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
async fn an_expired_visit_is_not_told_and_is_deleted_all_the_same() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["ZADD", "segment:old", "1000", "u1"]);
    redis.call::<()>(&["ZADD", "segments", "0", "old"]);
    assert_eq!(names(&app, "u1").await, ["sports"]);
    assert_eq!(forget(&app, "u1").await, 2);
    assert_eq!(traces(&redis, "u1"), 0);
}

#[tokio::test]
async fn who_is_forgotten_is_in_no_segment_and_others_stay() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, partitioned(partitions)).await;
        // More segments than are looked at in one round trip.
        let visits: Vec<_> = (0..1_500).map(|n| format!(r#"{{"user_id":"u1","segment":"s{n}"}}"#)).collect();
        app.lines_request(visits.join("\n")).send().await.unwrap().error_for_status().unwrap();
        app.record("u2", "s7").await;
        assert_eq!(app.count("s7").await, 2);
        assert_eq!(segments(&app, "u1").await.len(), 1_500);

        assert_eq!(forget(&app, "u1").await, 1_500);
        assert_eq!(app.count("s7").await, 1);
        assert_eq!(app.count("s8").await, 0);
        assert_eq!(segments(&app, "u1").await, [Value::Null; 0]);
        assert_eq!(names(&app, "u2").await, ["s7"]);
        assert_eq!(traces(&redis, "u1"), 0);

        assert_eq!(forget(&app, "u1").await, 0);
        app.record("u1", "s8").await;
        assert_eq!(names(&app, "u1").await, ["s8"]);
    }
}

#[tokio::test]
async fn any_user_id_comes_through() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for user in ["a/b", "{p01}:x", "größe", "50% & more?", "a+b"] {
        app.record(user, "sports").await;
        assert_eq!(names(&app, user).await, ["sports"], "{user}");
        assert_eq!(forget(&app, user).await, 1, "{user}");
    }
    assert_eq!(app.count("sports").await, 0);
}

/// A page of members that was read before the user was forgotten is written after it: as when the mover is slow.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_forgotten_during_a_move_is_not_brought_back_by_it() {
    for (from, to) in [("1", "8"), ("8", "1"), ("8", "2")] {
        let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
        let app = TestApp::spawn_with(&redis, partitioned(from)).await;
        for user in ["u1", "u2", "u3"] {
            app.record(user, "sports").await;
        }
        let store = redis.store();
        let layout = store.settled_layout().await.unwrap();
        let target = layout.keys().sibling(Partitions::parse(to).unwrap());
        let resharding = Some(Resharding { to: target, phase: Phase::Backfill });
        let layout = store.change_layout(&layout, layout.keys(), resharding).await.unwrap();
        let mut batch = Batch::default();
        for partition in layout.keys().all() {
            let page = store.members(partition, &segment("sports"), None).await.unwrap();
            for (user, seen_at) in page.members {
                batch.add(&visit(user.as_str(), "sports", seen_at));
            }
        }

        assert_eq!(forget(&app, "u1").await, 1);
        assert_eq!(forget(&app, "u2").await, 1);
        store.copy(&layout, target, &batch).await.unwrap();
        assert_eq!(store.count_in(target, &segment("sports"), Timestamp::from_millis(0)).await.unwrap(), 3);
        // Who is seen again stays.
        app.record("u2", "sports").await;

        let output = run(binary(folder.path()).args(["repartition", "--to", to, "--redis-url", &redis.url()]));
        assert!(output.status.success(), "{from} to {to}: {output:?}");
        assert_eq!(app.count("sports").await, 2, "{from} to {to}");
        assert_eq!(names(&app, "u1").await, [""; 0]);
        assert_eq!(names(&app, "u2").await, ["sports"]);
        assert_eq!(traces(&redis, "u1"), 0, "{from} to {to}");
        assert_eq!(redis.call::<Vec<String>>(&["KEYS", "*forgotten"]), [""; 0]);
        assert_eq!(forget(&app, "u3").await, 1);
        assert_eq!(app.count("sports").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_who_was_forgotten_does_not_outlive_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let store = redis.store();
    let layout = store.settled_layout().await.unwrap();
    let target = layout.keys().sibling(Partitions::parse("2").unwrap());
    store.change_layout(&layout, layout.keys(), Some(Resharding { to: target, phase: Phase::Backfill })).await.unwrap();
    forget(&app, "u1").await;
    let notes: Vec<String> = redis.call(&["KEYS", "*forgotten"]);
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    let left: i64 = redis.call(&["TTL", note]);
    assert!((1_209_000..=1_209_600).contains(&left), "{left}");
}

#[tokio::test]
async fn a_removal_that_too_few_replicas_have_is_503() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let strict = TestApp::spawn_with(&redis, settings([("write_acks", "1")])).await;
    problem(delete(&strict, "u1").await, 503, "store-unavailable").await;
    // The last of the segments is none.
    redis.call::<()>(&["SET", "segment:zzz", "x"]);
    redis.call::<()>(&["ZADD", "segments", "0", "zzz"]);
    problem(delete(&strict, "u1").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn a_key_that_is_no_segment_has_no_members() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["SET", "segment:broken", "x"]);
    redis.call::<()>(&["ZADD", "segments", "0", "broken"]);
    assert_eq!(names(&app, "u1").await, ["sports"]);
    assert_eq!(forget(&app, "u1").await, 1);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_without_redis_nobody_is_forgotten() {
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
    problem(delete(&app, "u1").await, 503, "store-unavailable").await;
    problem(app.get("/users/u1/segments").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn no_users_id_is_in_the_log_or_in_a_metric() {
    let (mut redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-url", &redis.url(), "--log-filter", "debug"]);
    service.record("whoever-this-is", "sports").await;
    redis.stop();
    for (method, path) in [("GET", "/users/whoever-this-is/segments"), ("DELETE", "/users/whoever-this-is")] {
        problem(service.request(method, path).send().await.unwrap(), 503, "store-unavailable").await;
    }
    redis.start_again();
    eventually("it serves again", async || service.status_of("/readyz").await == 200).await;
    forget(&service, "whoever-this-is").await;
    let metrics = service.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("/users/{user_id}") && !metrics.contains("whoever"), "{metrics}");
    let log = service.terminate_for_log();
    assert!(!log.is_empty() && !log.iter().any(|line| line.contains("whoever")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_found_and_forgotten_on_a_cluster() {
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
        assert_eq!(forget(&service, &user).await, 2);
        assert_eq!(names(&service, &user).await, [""; 0]);
    }
    assert_eq!((service.count("sports").await, service.count("news").await), (10, 10));
    assert!(service.terminate().success());
}

/// The lines of `log` about deletions: message, request id, who asked, and the status.
fn deletions(log: &[String]) -> Vec<(String, String, Value, Value)> {
    let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = events.filter(|event| event["message"].as_str().unwrap().contains("a user"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events
        .map(|event| {
            (text(&event["message"]), text(&event["request_id"]), event["by"].clone(), event["status"].clone())
        })
        .collect()
}

#[tokio::test]
async fn delete_leaves_a_line_that_tells_who_asked_and_not_which_user_unless_nobody_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let make = |name: &str, scope: &str| {
        let mut command = binary(folder.path());
        command.args(["token", "--name", name, "--scope", scope, "--api-keys-file"]).arg(&keys);
        String::from_utf8(run(&mut command).stdout).unwrap().trim_end().to_owned()
    };
    let (officer, reader) = (make("officer", "users:delete"), make("reader", "users:read"));
    let service = Service::start(folder.path(), &["--api-keys-file", keys.to_str().unwrap()]);
    for (id, key, query, status) in [
        ("first", Some(&officer), "", 200),
        ("second", Some(&officer), "?force=1", 422),
        ("third", Some(&reader), "", 403),
        ("fourth", None, "", 401),
    ] {
        let request = service.request("DELETE", &format!("/users/secret-user{query}")).header("x-request-id", id);
        let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["x-request-id"].to_str().unwrap()), (status, id));
    }
    let unnamed = service.request("DELETE", "/users/secret-user").bearer_auth(&officer).send().await.unwrap();
    let unnamed = unnamed.headers()["x-request-id"].to_str().unwrap().to_owned();

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

// With a thread for the proxy, which has to answer while the test waits for the service's start.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn delete_that_fails_or_is_given_up_leaves_a_line_too() {
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
    assert_eq!(forget(&service, "secret-user").await, 0);
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
