//! The query parameters `dry_run` of visits and batches, and `strict` of batches.

use reqwest::Response;
use rstest::rstest;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, problem, settings};

const GOOD: &str = r#"{"user_id":"u1","segment":"sports"}"#;
const SEVERAL: &str = r#"{"user_id":"u1","segments":["sports","news"]}"#;
const EXPIRED: &str = r#"{"user_id":"u1","segment":"sports","seen_at":0}"#;
const BAD: &str = r#"{"user_id":"","segment":"sports"}"#;

async fn app() -> (Redis, TestApp) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    (redis, app)
}

async fn post(app: &TestApp, path: &str, content_type: &str, body: &str) -> Response {
    app.request("POST", path).header("content-type", content_type).body(body.to_owned()).send().await.unwrap()
}

/// Posts `visits` as lines and as an array.
async fn post_batch(app: &TestApp, query: &str, visits: &[&str]) -> [Response; 2] {
    let path = format!("/segments/batch?{query}");
    let (lines, array) = (visits.join("\n"), format!("[{}]", visits.join(",")));
    [post(app, &path, "application/x-ndjson", &lines).await, post(app, &path, "application/json", &array).await]
}

fn bad(line: u64) -> Value {
    json!([{ "line": line, "field": "user_id", "detail": "must not be empty" }])
}

/// Asserts that the metrics of visits count nothing.
async fn assert_no_visits_are_counted(app: &TestApp) {
    let text = app.get("/metrics").await.text().await.unwrap();
    let samples: Vec<_> = text.lines().filter(|line| line.starts_with("estimator_visits_")).collect();
    assert!(samples.len() > 4 && samples.iter().all(|line| line.ends_with(" 0")), "{samples:#?}");
}

#[tokio::test]
async fn dry_run_of_a_visit_answers_as_a_visit_and_writes_nothing() {
    let (redis, app) = app().await;
    for visit in [GOOD, SEVERAL, EXPIRED] {
        let answer = post(&app, "/segments?dry_run=true", "application/json", visit).await;
        assert_eq!((answer.status().as_u16(), answer.bytes().await.unwrap().len()), (204, 0), "{visit}");
    }
    let answer = post(&app, "/segments?dry_run=true", "application/json", BAD).await;
    let document = problem(answer, 422, "invalid-request").await;
    assert_eq!(document["errors"], json!([{ "field": "user_id", "detail": "must not be empty" }]));
    problem(post(&app, "/segments?dry_run=true", "application/json", "{").await, 400, "malformed-request").await;
    assert!(redis.sets().is_empty());
    assert_no_visits_are_counted(&app).await;

    assert_eq!(post(&app, "/segments?dry_run=false", "application/json", GOOD).await.status(), 204);
    assert_eq!(app.count("sports").await, 1);
}

#[rstest]
#[case::valid(SEVERAL, "accepted")]
#[case::expired(EXPIRED, "expired")]
#[tokio::test]
async fn dry_run_of_a_visit_is_shown_if_preferred(#[case] visit: &str, #[case] result: &str) {
    let (_redis, app) = app().await;
    let request = app.request("POST", "/segments?dry_run=true").header("content-type", "application/json");
    let answer = request.header("prefer", "return=representation").body(visit.to_owned()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let document: Value = answer.json().await.unwrap();
    assert_eq!((&document["result"], &document["dry_run"]), (&json!(result), &json!(true)), "{document}");
}

#[tokio::test]
async fn dry_run_of_a_batch_reports_and_writes_nothing() {
    let (redis, app) = app().await;
    for answer in post_batch(&app, "dry_run=true", &[GOOD, SEVERAL, EXPIRED, BAD]).await {
        assert_eq!(answer.status(), 200);
        let expected = json!({
            "accepted": 3, "expired": 1, "rejected": 1, "errors": bad(4), "errors_truncated": false, "dry_run": true,
        });
        assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    }
    for answer in post_batch(&app, "dry_run=true", &[BAD]).await {
        let document = problem(answer, 422, "invalid-request").await;
        assert_eq!((&document["rejected"], &document["dry_run"]), (&json!(1), &json!(true)), "{document}");
    }
    let lines = "x\n".repeat(10_001);
    let answer = post(&app, "/segments/batch?dry_run=true", "application/x-ndjson", &lines).await;
    assert_eq!(problem(answer, 422, "too-many-rejected").await["dry_run"], true);
    assert!(redis.sets().is_empty());
    assert_no_visits_are_counted(&app).await;
}

/// The clock has been compared with Redis's by then.
#[tokio::test]
async fn dry_run_needs_no_redis() {
    let (mut redis, app) = app().await;
    app.record("u1", "sports").await;
    redis.stop();
    problem(post(&app, "/segments", "application/json", GOOD).await, 503, "store-unavailable").await;
    assert_eq!(post(&app, "/segments?dry_run=true", "application/json", GOOD).await.status(), 204);
    for answer in post_batch(&app, "dry_run=true&strict=true", &[GOOD, SEVERAL]).await {
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn strict_batch_records_the_valid_visits_and_is_422() {
    let (_redis, app) = app().await;
    for answer in post_batch(&app, "strict=true", &[GOOD, SEVERAL, BAD, EXPIRED]).await {
        let document = problem(answer, 422, "some-rejected").await;
        let counts = ["accepted", "expired", "rejected", "done_through_line"].map(|name| &document[name]);
        assert_eq!(counts, [&json!(3), &json!(1), &json!(1), &json!(4)], "{document}");
        assert_eq!((&document["errors"], &document["errors_truncated"]), (&bad(3), &json!(false)));
        assert_eq!(document.get("dry_run"), None);
    }
    assert_eq!((app.count("sports").await, app.count("news").await), (1, 1));
}

#[tokio::test]
async fn strict_batch_is_200_if_nothing_is_rejected() {
    let (_redis, app) = app().await;
    for answer in post_batch(&app, "strict=true", &[GOOD, EXPIRED]).await {
        assert_eq!(answer.status(), 200);
        let expected = json!({
            "accepted": 1, "expired": 1, "rejected": 0, "errors": [], "errors_truncated": false,
        });
        assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    }
    assert_eq!(post(&app, "/segments/batch?strict=true", "application/x-ndjson", "").await.status(), 200);
}

#[tokio::test]
async fn strict_batch_is_422_for_a_segment_beyond_max_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_segments", "1")])).await;
    let answer = post(&app, "/segments/batch?strict=true", "application/json", &format!("[{SEVERAL}]")).await;
    let document = problem(answer, 422, "some-rejected").await;
    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(1), &json!(1)), "{document}");
}

/// Other causes keep their types.
#[tokio::test]
async fn strict_batch_keeps_the_types_of_other_problems() {
    let (mut redis, app) = app().await;
    for answer in post_batch(&app, "strict=true", &[BAD, BAD]).await {
        problem(answer, 422, "invalid-request").await;
    }
    let answer = post(&app, "/segments/batch?strict=true", "application/json", GOOD).await;
    problem(answer, 422, "invalid-request").await;
    let answer = post(&app, "/segments/batch?strict=true", "application/x-ndjson", &"x\n".repeat(10_001)).await;
    problem(answer, 422, "too-many-rejected").await;
    redis.stop();
    for answer in post_batch(&app, "strict=true", &[GOOD, BAD]).await {
        problem(answer, 503, "store-unavailable").await;
    }
}

#[tokio::test]
async fn strict_dry_run_only_validates() {
    let (redis, app) = app().await;
    for answer in post_batch(&app, "strict=true&dry_run=true", &[GOOD, BAD]).await {
        let document = problem(answer, 422, "some-rejected").await;
        assert_eq!((&document["accepted"], &document["errors"]), (&json!(1), &bad(2)), "{document}");
        assert_eq!(document["dry_run"], true);
        assert!(document["detail"].as_str().unwrap().contains("Nothing was written"), "{document}");
    }
    assert!(redis.sets().is_empty());
}

#[rstest]
#[case::number("/segments?dry_run=1", "dry_run", "must be true or false")]
#[case::empty("/segments?dry_run=", "dry_run", "must be true or false")]
#[case::capitals("/segments/batch?strict=TRUE", "strict", "must be true or false")]
#[case::twice("/segments/batch?strict=true&strict=true", "strict", "is given more than once")]
#[case::misspelt(
    "/segments/batch?dryrun=true",
    "dryrun",
    "is not a parameter of this path; the parameters are strict, dry_run"
)]
#[case::of_batches_alone("/segments?strict=true", "strict", "is not a parameter of this path; the only one is dry_run")]
#[tokio::test]
async fn invalid_parameters_are_422_and_write_nothing(#[case] path: &str, #[case] field: &str, #[case] detail: &str) {
    let (redis, app) = app().await;
    let body = if path.starts_with("/segments/batch") { format!("[{GOOD}]") } else { GOOD.to_owned() };
    let document = problem(post(&app, path, "application/json", &body).await, 422, "invalid-request").await;
    assert_eq!(document["errors"], json!([{ "field": field, "detail": detail }]));
    assert!(redis.sets().is_empty());
}
