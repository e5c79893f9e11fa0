//! `GET /audience/count`: the number of users in some segments and not in others.

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::start_nine_overlaps;
use crate::helpers::{Proxy, Redis, TestApp, eventually, in_time, problem, settings, success};

/// Records the users 0 to 15, each in the segments whose bits its number has: `a` is bit 0, `d` is bit 3.
async fn record(app: &TestApp) {
    let mut lines = String::new();
    for user in 0..16 {
        for (_, segment) in ["a", "b", "c", "d"].iter().enumerate().filter(|(bit, _)| user >> bit & 1 == 1) {
            lines.push_str(&format!("{{\"user_id\":\"u{user}\",\"segment\":\"{segment}\"}}\n"));
        }
    }
    success(app.lines_request(lines).send().await.unwrap()).await;
}

#[tokio::test]
async fn audience_counts_users_in_all_in_any_and_in_none_in_one_partition_and_in_many() {
    for partitions in ["1", "64"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
        record(&app).await;
        for (query, count) in [
            ("all=a", 8),
            ("any=a", 8),
            ("all=a&all=b", 4),
            ("any=a&any=b", 12),
            ("all=a&none=b", 4),
            ("any=a&any=b&none=c", 6),
            ("all=a&any=b&any=c", 6),
            ("all=a&any=b&any=c&none=d", 3),
            ("none=d&any=c&all=a&any=b", 3),
            ("all=a&all=b&all=c&all=d", 1),
            ("all=a&all=nobody", 0),
            ("all=a&none=nobody", 8),
            ("any=a&any=nobody", 8),
        ] {
            let answer: Value = app.get(&format!("/audience/count?{query}")).await.json().await.unwrap();
            assert_eq!(answer["count"], count, "{query} with {partitions}: {answer}");
        }
    }
}

#[tokio::test]
async fn audience_counts_users_of_eight_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let mut lines = String::new();
    for user in 0..256 {
        for bit in (0..8).filter(|bit| user >> bit & 1 == 1) {
            lines.push_str(&format!("{{\"user_id\":\"u{user}\",\"segment\":\"s{bit}\"}}\n"));
        }
    }
    success(app.lines_request(lines).send().await.unwrap()).await;
    let names = |parameter: &str, bits: std::ops::Range<u32>| {
        bits.map(|bit| format!("{parameter}=s{bit}")).collect::<Vec<_>>().join("&")
    };
    for (query, count) in [
        (names("any", 0..8), 255),
        (names("all", 0..8), 1),
        (format!("all=s0&{}", names("none", 1..8)), 1),
        (format!("all=s7&all=s0&any=s1&any=s6&{}", names("none", 2..6)), 3),
    ] {
        let answer: Value = app.get(&format!("/audience/count?{query}")).await.json().await.unwrap();
        assert_eq!(answer["count"], count, "{query}: {answer}");
    }
}

#[tokio::test]
async fn audience_answer_repeats_the_segments_and_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record(&app).await;
    let path = "/audience/count?none=c&all=d&any=b&window=7d&any=a";
    let mut answer: Value = app.get(path).await.json().await.unwrap();
    let as_of = answer.as_object_mut().unwrap().remove("as_of").unwrap();
    assert!(as_of.as_str().unwrap().ends_with('Z'), "{as_of}");
    let segments =
        ["d", "b", "a", "c"].map(|name| json!({ "segment": name, "count": 8, "exact": true, "known": true }));
    assert_eq!(
        answer,
        json!({
            "all": ["d"], "any": ["b", "a"], "none": ["c"], "count": 3, "exact": true, "segments": segments,
            "window_seconds": 604_800,
        })
    );
}

#[tokio::test]
async fn audience_omits_users_seen_before_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let day = 86_400.0;
    let now = segment_estimator::domain::Timestamp::now().as_score();
    for (user, segment, days) in [("u1", "a", 2.0), ("u2", "a", 0.0), ("u2", "b", 2.0), ("u3", "a", 0.0)] {
        let visit = json!({ "user_id": user, "segment": segment, "seen_at": now - days * day });
        assert_eq!(app.post_visit(&visit).await.status(), 204);
    }
    for (query, count) in
        [("all=a&none=b", 2), ("all=a&none=b&window=1d", 2), ("all=a&all=b&window=1d", 0), ("any=b", 1)]
    {
        let answer: Value = app.get(&format!("/audience/count?{query}")).await.json().await.unwrap();
        assert_eq!(answer["count"], count, "{query}");
    }
}

#[rstest]
#[case::nothing("", "all", "must be given, unless any is given")]
#[case::only_none("none=a", "all", "must be given, unless any is given")]
#[case::nine_together(
    "all=1&all=2&all=3&any=4&any=5&any=6&none=7&none=8&none=9",
    "all",
    "must have at most 8 segments together with any and none, not 9"
)]
#[case::repeated("any=a&any=a", "any", "contains \"a\" more than once")]
#[case::in_two_parameters("all=a&none=a", "none", "contains \"a\", which all contains too")]
#[case::empty_name("all=a&any=", "any", "must not be empty")]
#[case::long_window("all=a&window=15d", "window", "must not be longer than the configured window of 14d")]
#[case::unknown(
    "segment=a",
    "segment",
    "is not a parameter of this path; the parameters are all, any, none, window, format"
)]
#[tokio::test]
async fn audience_rejects_bad_parameters(#[case] query: &str, #[case] field: &str, #[case] detail: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let document = problem(app.get(&format!("/audience/count?{query}")).await, 422, "invalid-request").await;
    assert_eq!(document["errors"], json!([{ "field": field, "detail": detail }]));
}

#[tokio::test]
async fn audience_and_overlap_share_max_overlaps() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_overlaps", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "a").await;
    assert_eq!(app.status_of("/audience/count?all=a").await, 200);

    proxy.hold_replies();
    let overlaps = start_nine_overlaps(&app);
    app.eventually_in_flight(9).await;
    problem(in_time("the refusal", app.get("/audience/count?all=a")).await, 429, "too-many-overlaps").await;

    overlaps.iter().for_each(JoinHandle::abort);
    proxy.release_replies();
    eventually("the audience is counted again", async || {
        app.status_of("/audience/count?all=a").await == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn audience_is_503_after_overlap_timeout() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("overlap_timeout", "200ms"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "a").await;

    proxy.hold_replies();
    let answer = in_time("the audience ends at its deadline", app.get("/audience/count?all=a")).await;
    problem(answer, 503, "request-timeout").await;
}
