//! `GET /segments/{name}/histogram`: a segment's users by the time of their last visit.

use std::time::Duration;

use reqwest::StatusCode;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use serde_json::{Value, json};

use crate::helpers::{NOON, Redis, TestApp, noon_plus, problem, segment, settings, visit};

/// Users at the bounds of four buckets of 1 s each, and beside them: milliseconds before noon, and the bucket.
const SEEN: [(i64, Option<usize>); 10] = [
    (4_001, None),
    (4_000, None),
    (3_999, Some(0)),
    (3_000, Some(0)),
    (2_999, Some(1)),
    (2_000, Some(1)),
    (1_500, Some(2)),
    (1_000, Some(2)),
    (999, Some(3)),
    (0, Some(3)),
];

#[tokio::test]
async fn histogram_counts_each_user_in_the_bucket_of_the_last_visit() {
    let redis = Redis::start();
    let estimator = Estimator::new(redis.store(), Window::parse("1h").unwrap());
    for (user, (before, _)) in SEEN.iter().enumerate() {
        let seen_at = noon_plus(-before);
        estimator.record(visit(&format!("u{user}"), "sports", seen_at), seen_at).await.unwrap();
    }
    let window = Window::new(Duration::from_secs(4)).unwrap();
    let histogram = estimator.histogram(&segment("sports"), window, 4, NOON).await.unwrap();

    let mut expected = [0; 4];
    SEEN.iter().filter_map(|(_, bucket)| *bucket).for_each(|bucket| expected[bucket] += 1);
    assert_eq!(histogram.buckets.iter().map(|bucket| bucket.count).collect::<Vec<_>>(), expected);
    let bounds: Vec<_> = histogram.buckets.iter().map(|bucket| (bucket.from, bucket.to)).collect();
    assert_eq!(bounds, [4, 3, 2, 1].map(|second| (noon_plus(-1_000 * second), noon_plus(-1_000 * (second - 1)))));
    assert_eq!(histogram.count, estimator.estimate_within(&segment("sports"), window, NOON).await.unwrap());
}

#[tokio::test]
async fn histogram_adds_up_to_the_count() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let settings = settings([("partitions", partitions)]);
        let app = TestApp::spawn_with(&redis, settings).await;
        let now = Timestamp::now().as_millis() / 1_000;
        let visits: Vec<_> = (0..900)
            .map(|n| json!({ "user_id": format!("u{n}"), "segment": "sports", "seen_at": now - n * 1_300 }))
            .collect();
        assert_eq!(app.post_array(&json!(visits)).await.status(), StatusCode::OK);
        for buckets in [1, 3, 14, 100] {
            let path = format!("/segments/sports/histogram?buckets={buckets}&window=10d");
            let answer: Value = app.get(&path).await.json().await.unwrap();
            let found = answer["buckets"].as_array().unwrap();
            assert_eq!(found.len(), buckets);
            let sum: u64 = found.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
            assert_eq!((sum, answer["count"].as_u64().unwrap()), (665, 665), "{buckets}");
            assert!(found.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"]), "{answer}");
            assert_eq!(found[0]["leave_from"], answer["as_of"]);
            assert_eq!(found[buckets - 1]["to"], answer["as_of"]);
        }
        let by_default: Value = app.get("/segments/nobody/histogram").await.json().await.unwrap();
        assert_eq!((by_default["buckets"].as_array().unwrap().len(), &by_default["count"]), (14, &json!(0)));
        assert_eq!(by_default["window_seconds"], 1_209_600);
    }
}

#[tokio::test]
async fn histogram_rejects_bad_parameters_and_is_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (query, field) in [
        ("buckets=0", "buckets"),
        ("buckets=101", "buckets"),
        ("buckets=many", "buckets"),
        ("window=15d", "window"),
        ("bucket=3", "bucket"),
    ] {
        let response = app.get(&format!("/segments/sports/histogram?{query}")).await;
        let document = problem(response, 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{document}");
    }
    redis.stop();
    problem(app.get("/segments/sports/histogram").await, 503, "store-unavailable").await;
}
