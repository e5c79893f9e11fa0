//! Visits with `segments`, an array of names, in place of `segment`.

use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Client, Redis, RedisCluster, Service, TestApp, Upload, eventually, in_time, problem, settings};

/// Returns the value of a metric, which is 0 if it isn't there. `name` includes the labels.
async fn metric(app: &Client, name: &str) -> f64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("s{n}")).collect()
}

fn visit(user: &str, segments: &[&str]) -> Value {
    json!({ "user_id": user, "segments": segments })
}

/// Returns lines of a `user` in these segments.
fn lines(visits: &[(&str, &[&str])]) -> String {
    visits.iter().map(|(user, segments)| visit(user, segments).to_string() + "\n").collect()
}

#[rstest]
#[case::one_partition("1")]
#[case::sixteen_partitions("16")]
#[tokio::test]
async fn record_writes_a_visit_to_each_segment(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    let seen_at = Timestamp::now().as_millis() / 1_000 - 60;
    for n in 0..20 {
        // A repeated name makes no difference to the count.
        let segments = ["sports", "news", "sports", "a b"];
        let visit = json!({ "user_id": format!("u{n}"), "segments": segments, "seen_at": seen_at });
        assert_eq!(app.post_visit(&visit).await.status(), 204);
    }
    app.record("u0", "news").await;
    assert_eq!(app.post_visit(&visit("u20", &["news"])).await.status(), 204);
    for (segment, count) in [("sports", 20), ("news", 21), ("a b", 20)] {
        assert_eq!(app.count(segment).await, count, "{segment}");
    }
    let kept: Value = app.get("/users/u1/segments").await.json().await.unwrap();
    let last_seen = Timestamp::from_millis(seen_at * 1_000).to_string();
    let kept: Vec<_> = kept["segments"].as_array().unwrap().iter().map(|kept| kept["last_seen"].as_str()).collect();
    assert_eq!(kept, [Some(last_seen.as_str()); 3]);
    assert_eq!(metric(&app, "estimator_visits_accepted_total").await, 82.0);
}

#[tokio::test]
async fn record_writes_a_hundred_segments_in_one_batch() {
    let redis = Redis::start();
    // A list needs the room of one visit.
    let app = TestApp::spawn_with(&redis, settings([("max_waiting", "1")])).await;
    let visit = json!({ "user_id": "u1", "segments": names(100) });
    assert_eq!(app.post_visit(&visit).await.status(), 204);
    assert_eq!(redis.sets().len(), 101, "100 segments and the index");
    assert_eq!(metric(&app, r#"estimator_round_size_sum{kind="visits"}"#).await, 100.0);
    assert_eq!(metric(&app, r#"estimator_round_size_count{kind="visits"}"#).await, 1.0);
    let refused = json!({ "user_id": "u1", "segments": names(101) });
    let document = problem(app.post_visit(&refused).await, 422, "invalid-request").await;
    assert_eq!(document["detail"], "segments has more than 100 names, the limit");
}

#[tokio::test]
async fn record_writes_nothing_if_a_name_is_invalid() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (visit, field, detail) in [
        (visit("u1", &["sports", "", "news"]), "segments[1]", "must not be empty"),
        (json!({ "user_id": "u1", "segments": ["sports", 7] }), "segments[1]", "must be a string, not a number"),
        (visit("u1", &[]), "segments", "must not be empty"),
        (json!({ "user_id": "u1", "segments": "sports" }), "segments", "must be an array of strings, not a string"),
        (json!({ "user_id": "u1" }), "segment", "is required, or segments"),
        (
            json!({ "user_id": "u1", "segment": "sports", "segments": ["news"] }),
            "segments",
            "is given together with segment; a visit has one of them",
        ),
    ] {
        let document = problem(app.post_visit(&visit).await, 422, "invalid-request").await;
        assert_eq!(document["errors"], json!([{ "field": field, "detail": detail }]), "{visit}");
    }
    assert!(redis.sets().is_empty());
    assert_eq!(metric(&app, r#"estimator_visits_rejected_total{reason="fields"}"#).await, 6.0);
}

#[tokio::test]
async fn record_acknowledges_expired_visits_to_several_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let expired = json!({ "user_id": "u1", "segments": ["sports", "news"], "seen_at": 0 });
    assert_eq!(app.post_visit(&expired).await.status(), 204);
    assert!(redis.sets().is_empty());
    assert_eq!(metric(&app, "estimator_visits_expired_total").await, 2.0);
}

#[tokio::test]
async fn record_returns_the_segments_if_preferred() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let now = Timestamp::now().as_millis() / 1_000 * 1_000;
    for (seen_at, result) in [(now, "accepted"), (0, "expired")] {
        let seen_at = Timestamp::from_millis(seen_at).to_string();
        let visit = json!({ "user_id": "u1", "segments": ["sports", "news"], "seen_at": seen_at });
        let request = app.request("POST", "/segments").header("prefer", "return=representation").json(&visit);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["preference-applied"], "return=representation");
        let mut expected = visit.clone();
        expected["result"] = json!(result);
        assert_eq!(response.json::<Value>().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn record_is_503_while_redis_is_down_and_may_be_repeated() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u0", "sports").await;
    redis.stop();
    let visit = visit("u1", &["sports", "news", "weather"]);
    problem(app.post_visit(&visit).await, 503, "store-unavailable").await;
    assert_eq!(metric(&app, "estimator_visits_accepted_total").await, 1.0);
    redis.start_again();
    eventually("the visits are recorded", async || app.post_visit(&visit).await.status() == 204).await;
    for (segment, count) in [("sports", 2), ("news", 1), ("weather", 1)] {
        assert_eq!(app.count(segment).await, count, "{segment}");
    }
    assert_eq!(metric(&app, "estimator_visits_accepted_total").await, 4.0);
}

#[tokio::test]
async fn record_is_503_if_one_segment_is_not_acknowledged() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_segments", "3")])).await;
    app.record("u0", "sports").await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    // Other segments exceed the limit, but a repetition may still record the rest.
    let visit = visit("u1", &["sports", "broken", "news", "a", "b"]);
    problem(app.post_visit(&visit).await, 503, "store-unavailable").await;
    assert_eq!(app.count("sports").await, 2);
    redis.call::<()>(&["DEL", "segment:broken"]);
    let document = problem(app.post_visit(&visit).await, 422, "too-many-segments").await;
    assert!(!document["errors"].as_array().unwrap().is_empty(), "{document}");
}

#[rstest]
#[case::one_partition("1")]
#[case::sixteen_partitions("16")]
#[tokio::test]
async fn record_names_the_segments_beyond_max_segments_and_records_the_others(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_segments", "2"), ("partitions", partitions)])).await;
    assert_eq!(app.post_visit(&visit("u0", &["sports", "news"])).await.status(), 204);
    let document = problem(app.post_visit(&visit("u1", &["x", "sports", "y", "news"])).await, 422, "too-many-segments");
    let document = document.await;
    let detail = "would be new, and the maximum number of segments, 2, is reached";
    let errors = ["segments[0]", "segments[2]"].map(|field| json!({ "field": field, "detail": detail }));
    assert_eq!(document["errors"], json!(errors));
    let says = "The visits to the other segments of the request are recorded.";
    assert!(document["detail"].as_str().unwrap().contains(says), "{document}");
    assert_eq!((app.count("sports").await, app.count("news").await, app.count("x").await), (2, 2, 0));
    assert_eq!(metric(&app, "estimator_visits_accepted_total").await, 4.0);
    assert_eq!(metric(&app, r#"estimator_visits_rejected_total{reason="too_many_segments"}"#).await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_and_batch_write_to_several_segments_in_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let app = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    let mut upload = String::new();
    for n in 0..50 {
        let user = format!("u{n}");
        assert_eq!(app.post_visit(&visit(&user, &["sports", "news"])).await.status(), 204);
        upload.push_str(&lines(&[(&user, &["weather", "news"])]));
    }
    let report: Value = app.post_lines(upload).await.json().await.unwrap();
    assert_eq!(report["accepted"], 100);
    assert_eq!((app.count("sports").await, app.count("news").await, app.count("weather").await), (50, 50, 50));
}

#[rstest]
#[case::one_partition("1")]
#[case::sixteen_partitions("16")]
#[tokio::test]
async fn batch_counts_a_visit_for_each_segment(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    let visits = [
        visit("u1", &["sports", "news"]),
        json!({ "user_id": "u2", "segment": "sports" }),
        json!({ "user_id": "u3", "segments": ["sports", "news", "weather"], "seen_at": 0 }),
        visit("u4", &["sports", "", " x"]),
        visit("u5", &["news"]),
    ];
    let expected = json!({
        "accepted": 4,
        "expired": 3,
        "rejected": 1,
        "errors": [
            { "line": 4, "field": "segments[1]", "detail": "must not be empty" },
            { "line": 4, "field": "segments[2]", "detail": "must not start or end with white space" },
        ],
        "errors_truncated": false,
    });
    let text: String = visits.iter().map(|visit| visit.to_string() + "\n").collect();
    for response in [app.post_array(&json!(visits)).await, app.post_lines(text).await] {
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), expected);
    }
    assert_eq!((app.count("sports").await, app.count("news").await), (2, 2));
    for (name, value) in [
        ("estimator_visits_accepted_total", 8.0),
        ("estimator_visits_expired_total", 6.0),
        (r#"estimator_visits_rejected_total{reason="fields"}"#, 2.0),
    ] {
        assert_eq!(metric(&app, name).await, value, "{name}");
    }
}

#[tokio::test]
async fn batch_writes_many_lines_of_a_hundred_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let text: String =
        (0..1_000).map(|n| json!({ "user_id": format!("u{n}"), "segments": names(100) }).to_string() + "\n").collect();
    let report: Value = app.post_lines(text).await.json().await.unwrap();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(100_000), &json!(0)), "{report}");
    let array: Vec<_> = (0..1_000).map(|n| json!({ "user_id": format!("v{n}"), "segments": names(100) })).collect();
    let report: Value = app.post_array(&json!(array)).await.json().await.unwrap();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(100_000), &json!(0)), "{report}");
    let members: u64 = (0..100).map(|n| redis.call::<u64>(&["ZCARD", &format!("segment:s{n}")])).sum();
    assert_eq!(members, 200_000);
}

#[tokio::test]
async fn batch_names_the_segment_that_redis_refused() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let text = lines(&[("u1", &["sports"]), ("u2", &["sports", "broken", "news"]), ("u3", &["news"])]);
    let document = problem(app.post_lines(text).await, 503, "store-unavailable").await;
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(4), &json!(1)), "{document}");
    let detail = "could not be written: Redis refused this segment's command";
    assert_eq!(document["errors"], json!([{ "line": 2, "field": "segments[1]", "detail": detail }]));
    assert_eq!((app.count("sports").await, app.count("news").await), (2, 2));
}

#[tokio::test]
async fn batch_rejects_only_the_segments_beyond_max_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_segments", "2")])).await;
    let response = app.post_lines(lines(&[("u1", &["sports", "news"])])).await;
    assert_eq!(response.status(), 200);
    let report: Value = app.post_lines(lines(&[("u2", &["sports", "x", "news", "y"])])).await.json().await.unwrap();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(2), &json!(2)), "{report}");
    let fields: Vec<_> = report["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["segments[1]", "segments[3]"]);
}

#[tokio::test]
async fn batch_that_loses_redis_may_be_repeated_from_the_line() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(lines(&[("u1", &["sports", "news"])]).as_bytes()).await;
    eventually("the first line is written", async || app.count("news").await == 1).await;
    redis.stop();
    let rest = lines(&[("u2", &["sports", "news"])]);
    upload.send(rest.as_bytes()).await;
    let (status, document) = in_time("the answer", upload.answer()).await;
    assert_eq!((status, &document["accepted"], &document["done_through_line"]), (503, &json!(2), &json!(1)));
    redis.start_again();
    eventually("the rest is recorded", async || app.post_lines(rest.clone()).await.status() == 200).await;
    assert_eq!((app.count("sports").await, app.count("news").await), (2, 2));
}
