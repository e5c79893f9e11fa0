//! The limit on the number of segments: `max_segments`.

use rstest::rstest;
use segment_estimator::config::RawSettings;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, eventually, problem, settings};

fn limited(max_segments: &str, partitions: &str) -> RawSettings {
    settings([("max_segments", max_segments), ("partitions", partitions)])
}

fn lines(segments: impl IntoIterator<Item = String>) -> String {
    let visit = |(n, segment)| json!({ "user_id": format!("u{n}"), "segment": segment }).to_string() + "\n";
    segments.into_iter().enumerate().map(visit).collect()
}

async fn rejected(app: &TestApp) -> u64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let name = r#"estimator_visits_rejected_total{reason="too_many_segments"} "#;
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

#[rstest]
#[case::one_partition("1")]
#[case::sixteen_partitions("16")]
#[tokio::test]
async fn record_rejects_a_segment_beyond_max_segments_and_takes_others(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, limited("3", partitions)).await;
    for segment in ["a", "b", "c"] {
        app.record("u0", segment).await;
    }
    for n in 0..30 {
        let new = json!({ "user_id": format!("u{n}"), "segment": format!("new{}", n % 3) });
        let document = problem(app.post_visit(&new).await, 422, "too-many-segments").await;
        assert_eq!(
            document["errors"],
            json!([{ "field": "segment", "detail": "would be new, and the maximum number of segments, 3, is reached" }])
        );
        assert!(document["detail"].as_str().unwrap().contains("raise max_segments"), "{document}");
        // The user may be in a partition without this segment.
        app.record(&format!("u{n}"), "b").await;
    }
    assert_eq!((app.count("b").await, app.count("new0").await), (30, 0));
    assert_eq!(rejected(&app).await, 30);
    let listed: Value = app.get("/segments").await.json().await.unwrap();
    assert_eq!(listed["segments"].as_array().unwrap().len(), 3);
    assert!(redis.sets().iter().all(|key| !key.contains("new")), "nothing was written");
}

#[rstest]
#[case::one_partition("1")]
#[case::sixteen_partitions("16")]
#[tokio::test]
async fn batch_rejects_the_lines_of_segments_beyond_max_segments(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, limited("100", partitions)).await;
    let names = (0..300).map(|n| format!("s{n}"));
    let report: Value = app.post_lines(lines(names)).await.json().await.unwrap();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(100), &json!(200)), "{report}");
    let why = "was not written: the segment would be new, and 100 segments exist already, the maximum that max_segments allows";
    // The order of the chunks is random.
    let errors = report["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["field"] == "segment" && error["detail"] == why), "{report}");
    assert_eq!((errors.len(), &report["errors_truncated"]), (100, &json!(true)));

    // Visits to existing segments are recorded between the rejected ones.
    let names = (0..300).map(|n| format!("s{}", 299 - n));
    let report: Value = app.post_lines(lines(names)).await.json().await.unwrap();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(100), &json!(200)), "{report}");
    assert_eq!(rejected(&app).await, 400);
    let visits: Vec<_> = (0..3).map(|n| json!({ "user_id": "u", "segment": format!("new{n}") })).collect();
    problem(app.post_array(&json!(visits)).await, 422, "invalid-request").await;
}

#[tokio::test]
async fn batch_ends_after_too_many_lines_beyond_max_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, limited("1", "1")).await;
    app.record("u0", "sports").await;
    let names = (0..200_000).map(|n| format!("s{n}"));
    let document = problem(app.post_lines(lines(names)).await, 422, "too-many-rejected").await;
    let (rejected, done) = (document["rejected"].as_u64().unwrap(), document["done_through_line"].as_u64().unwrap());
    assert!((10_000..100_000).contains(&rejected) && rejected == done, "{document}");
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["sports"]);
}

#[tokio::test]
async fn max_segments_keeps_existing_segments_and_counts_those_in_redis() {
    let redis = Redis::start();
    redis.record_data_set();
    for name in ["a", "b", "c"] {
        redis.call::<()>(&["ZADD", "segments", "0", name]);
    }
    // There are more segments than the limit, as after it was lowered.
    let app = TestApp::spawn_with(&redis, limited("2", "1")).await;
    app.record("u1", "a").await;
    app.record("u1", "c").await;
    problem(app.post_visit(&json!({ "user_id": "u1", "segment": "d" })).await, 422, "too-many-segments").await;
    redis.call::<()>(&["ZREM", "segments", "a", "b"]);
    eventually("a new segment is accepted", async || {
        app.post_visit(&json!({ "user_id": "u1", "segment": "d" })).await.status() == 204
    })
    .await;
}

#[tokio::test]
async fn max_segments_costs_redis_nothing_while_there_is_room() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, limited("1000", "1")).await;
    app.record("u0", "sports").await;
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    for n in 0..50 {
        app.record(&format!("u{n}"), &format!("s{n}")).await;
    }
    let names = (0..900).map(|n| format!("s{n}"));
    let report: Value = app.post_lines(lines(names)).await.json().await.unwrap();
    assert_eq!(report["accepted"], 900);
    assert_eq!(redis.calls("zmscore"), 0);
}

#[tokio::test]
async fn max_segments_counts_a_segment_of_several_partitions_once() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, limited("100", "64")).await;
    for round in 0..3 {
        // Each batch has other users, so that existing names come into further partitions.
        for part in 0..10 {
            let visits = (0..30).flat_map(|user| {
                (0..30).map(move |n| format!(r#"{{"user_id":"u{round}-{part}-{user}","segment":"s{round}-{n}"}}"#))
            });
            let report: Value = app.post_lines(visits.collect::<Vec<_>>().join("\n")).await.json().await.unwrap();
            assert_eq!((&report["accepted"], &report["rejected"]), (&json!(900), &json!(0)), "{report}");
        }
    }
    let listed: Value = app.get("/segments").await.json().await.unwrap();
    assert_eq!(listed["segments"].as_array().unwrap().len(), 90);
}
