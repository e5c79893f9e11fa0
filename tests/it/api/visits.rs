//! `POST /segments`.

use std::sync::Arc;

use reqwest::{Response, StatusCode};
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::helpers::{Redis, TestApp, eventually, problem, settings};

#[tokio::test]
async fn record_writes_the_member_and_the_index() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    assert_eq!(app.count("sports").await, 0);

    app.record("u104010", "sports").await;

    assert_eq!(app.count("sports").await, 1);
    assert_eq!(app.count("news").await, 0);
    let members: Vec<(String, f64)> = redis.call(&["ZRANGE", "segment:sports", "0", "-1", "WITHSCORES"]);
    let [(user, score)] = members.as_slice() else { panic!("{members:?}") };
    assert_eq!(user, "u104010");
    assert!((Timestamp::now().as_score() - score).abs() < 60.0, "{score} is not Unix time in seconds");
    let index: Vec<(String, f64)> = redis.call(&["ZRANGE", "segments", "0", "-1", "WITHSCORES"]);
    assert_eq!(index, [("sports".to_owned(), 0.0)]);
}

#[tokio::test]
async fn record_counts_a_user_once_per_segment() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for segment in ["sports", "sports", "news", "sports", "news"] {
        app.record("u104010", segment).await;
    }
    app.record("u104011", "sports").await;

    assert_eq!(app.count("sports").await, 2);
    assert_eq!(app.count("news").await, 1);
}

#[tokio::test]
async fn record_takes_seen_at_in_seconds_and_as_rfc_3339() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let seconds = Timestamp::now().as_millis() / 1000 - 60;
    let text = Timestamp::from_millis(seconds * 1000 + 250).to_string();
    for (user, seen_at) in [("a", json!(seconds)), ("b", json!(text))] {
        let response = app.post_visit(&json!({ "user_id": user, "segment": "sports", "seen_at": seen_at })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    let score = |user| redis.call::<f64>(&["ZSCORE", "segment:sports", user]);
    assert_eq!(score("a"), seconds as f64);
    assert_eq!(score("b"), seconds as f64 + 0.25);
}

#[tokio::test]
async fn record_acknowledges_an_expired_visit_without_writing_it() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for seen_at in [json!(0), json!("2001-01-01T00:00:00Z"), json!(-1e300)] {
        let response = app.post_visit(&json!({ "user_id": "u104010", "segment": "sports", "seen_at": seen_at })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    assert_eq!(app.count("sports").await, 0);
    let keys = redis.sets();
    assert_eq!(keys, Vec::<String>::new());
}

#[tokio::test]
async fn record_limits_a_seen_at_slightly_ahead_to_now() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let ahead = Timestamp::now().as_millis() / 1000 + 200;
    let response = app.post_visit(&json!({ "user_id": "u104010", "segment": "sports", "seen_at": ahead })).await;

    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let score: f64 = redis.call(&["ZSCORE", "segment:sports", "u104010"]);
    assert!(score <= Timestamp::now().as_score());
}

#[tokio::test]
async fn record_takes_any_user_id() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let longest = "u".repeat(256);
    let ids = ["u104010", "GT", "0", "+inf", "{u}", "🦀", "a b", "b31f6f0e-9d0f-4f7c-8f0d-0c5e5c1f2a3b", &longest];
    for id in ids {
        app.record(id, "sports").await;
        app.record(id, "sports").await;
    }

    assert_eq!(app.count("sports").await, ids.len() as u64);
    for id in ids {
        assert!(redis.call::<Option<f64>>(&["ZSCORE", "segment:sports", id]).is_some(), "{id}");
    }
}

#[tokio::test]
async fn record_takes_a_content_type_with_parameters() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json ;charset=UTF-8"] {
        let request = app.request("POST", "/segments").header("content-type", content_type);
        let response = request.body(r#"{"user_id":"u104010","segment":"sports"}"#).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{content_type}");
    }
}

#[tokio::test]
async fn record_handles_concurrent_visits() {
    let redis = Redis::start();
    let app = Arc::new(TestApp::spawn(&redis).await);
    let mut posts = JoinSet::new();
    for n in 0..200 {
        let app = app.clone();
        posts.spawn(async move {
            app.record(&format!("u{n}"), "sports").await;
            app.record(&format!("u{n}"), "news").await;
        });
    }
    posts.join_all().await;

    assert_eq!((app.count("sports").await, app.count("news").await), (200, 200));
}

#[tokio::test]
async fn record_again_keeps_a_user_in_the_segment() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("window", "2s")])).await;
    app.record("stays", "sports").await;
    app.record("leaves", "sports").await;
    assert_eq!(app.count("sports").await, 2);

    eventually("only the user with repeated visits counts", async || {
        app.record("stays", "sports").await;
        app.count("sports").await == 1
    })
    .await;
}

#[tokio::test]
async fn record_returns_the_result_if_preferred() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let post = async |preference: Option<&str>, seen_at: Option<i64>| {
        let mut visit = json!({ "user_id": "u1", "segment": "sports" });
        if let Some(seen_at) = seen_at {
            visit["seen_at"] = json!(seen_at);
        }
        let request = app.request("POST", "/segments").json(&visit);
        let request = preference.into_iter().fold(request, |request, value| request.header("prefer", value));
        request.send().await.unwrap()
    };
    let applied = |response: &Response| {
        response.headers().get("preference-applied").map(|value| value.to_str().unwrap().to_owned())
    };
    let now = Timestamp::now().as_millis() / 1_000;
    let time = |seconds: i64| Timestamp::from_millis(seconds * 1_000).to_string();
    const PREFERENCE: &str = "return=representation";
    for (seen_at, result) in [(now - 60, "accepted"), (now - 15 * 86_400, "expired"), (now - 120, "accepted")] {
        let response = post(Some(PREFERENCE), Some(seen_at)).await;
        assert_eq!((response.status().as_u16(), applied(&response).as_deref()), (200, Some(PREFERENCE)));
        assert_eq!(response.headers()["cache-control"], "no-store");
        let document: Value = response.json().await.unwrap();
        let expected = json!({ "result": result, "user_id": "u1", "segment": "sports", "seen_at": time(seen_at) });
        assert_eq!(document, expected);
    }
    // No earlier time has the form of RFC 3339.
    let early: Value = post(Some(PREFERENCE), Some(-1_000_000_000_000)).await.json().await.unwrap();
    assert_eq!((&early["result"], &early["seen_at"]), (&json!("expired"), &json!("0000-01-01T00:00:00.000Z")));
    // The later of two visits is kept, whatever their order of arrival.
    assert_eq!(redis.call::<f64>(&["ZSCORE", "segment:sports", "u1"]), (now - 60) as f64);
    // A visit ahead of the clock, or without a time, gets the present time.
    for seen_at in [Some(now + 240), None] {
        let document: Value = post(Some(PREFERENCE), seen_at).await.json().await.unwrap();
        let taken = Timestamp::from_rfc3339(document["seen_at"].as_str().unwrap()).unwrap();
        assert!(taken <= Timestamp::now() && taken.as_millis() >= now * 1_000, "{document}");
    }
    for preference in [None, Some("return=minimal"), Some("respond-async")] {
        let response = post(preference, Some(now - 15 * 86_400)).await;
        assert_eq!((response.status().as_u16(), applied(&response)), (204, None), "{preference:?}");
    }
    let invalid = post(Some(PREFERENCE), Some(now + 86_400)).await;
    assert_eq!(applied(&invalid), None);
    problem(invalid, 422, "invalid-request").await;
}
