//! Posting visits and asking for counts, as a USS and an analyst do.

use std::sync::Arc;

use reqwest::{Response, StatusCode};
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::helpers::{Redis, TestApp, count_path, eventually, settings};

#[tokio::test]
async fn a_recorded_visit_counts() {
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
async fn a_count_says_what_it_counted_and_when() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    let response = app.get("/segments/sports/count").await;

    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let count: Value = response.json().await.unwrap();
    let as_of = count["as_of"].as_str().unwrap();
    assert_eq!(count, json!({ "segment": "sports", "count": 1, "window_seconds": 1_209_600, "as_of": as_of }));
    let as_of = Timestamp::from_rfc3339(as_of).expect("as_of is RFC 3339");
    assert!((Timestamp::now().as_millis() - as_of.as_millis()).abs() < 60_000);
}

#[tokio::test]
async fn the_same_user_counts_once_a_segment_and_in_every_segment() {
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
async fn seen_at_is_taken_in_seconds_and_as_rfc_3339() {
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
async fn an_expired_visit_is_acknowledged_and_not_written() {
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
async fn a_clock_slightly_ahead_is_held_at_now() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let ahead = Timestamp::now().as_millis() / 1000 + 200;
    let response = app.post_visit(&json!({ "user_id": "u104010", "segment": "sports", "seen_at": ahead })).await;

    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let score: f64 = redis.call(&["ZSCORE", "segment:sports", "u104010"]);
    assert!(score <= Timestamp::now().as_score());
}

#[tokio::test]
async fn a_shorter_window_may_be_asked_for() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let now = Timestamp::now().as_millis() / 1000;
    for (user, days_ago) in [("a", 0), ("b", 3), ("c", 8)] {
        let seen_at = now - days_ago * 86_400;
        let response = app.post_visit(&json!({ "user_id": user, "segment": "sports", "seen_at": seen_at })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    for (window, seconds, expected) in
        [("1d", 86_400, 1), ("7d", 604_800, 2), ("9d", 777_600, 3), ("336h", 1_209_600, 3)]
    {
        let response = app.get(&format!("/segments/sports/count?window={window}")).await;
        let count: Value = response.json().await.unwrap();
        assert_eq!((&count["count"], &count["window_seconds"]), (&json!(expected), &json!(seconds)), "{window}");
    }
}

#[tokio::test]
async fn any_name_comes_through_url_and_key() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let longest = "ü".repeat(64);
    let names = [
        "{sports}",
        "a{b}c",
        "{}",
        "}{",
        "a:b:c",
        "segments",
        "segment:segments",
        "a/b",
        "/",
        "...",
        "a%2Fb",
        "100%",
        "%",
        "a+b c",
        "a?b=c&d#e",
        "⚽️🏆",
        "спорт",
        "\"quoted\" \\ 'name'",
        "*[a-z]?",
        "$(id);`id`",
        "-1",
        "(5",
        "+inf",
        longest.as_str(),
    ];
    assert_eq!(longest.len(), 128);
    for name in names {
        app.record("u104010", name).await;
    }

    for name in names {
        assert_eq!(app.count(name).await, 1, "{name}");
        assert_eq!(redis.call::<u64>(&["ZCARD", &format!("segment:{name}")]), 1, "{name}");
        let response: Value = app.get(&count_path(name)).await.json().await.unwrap();
        assert_eq!(response["segment"], name);
    }
    let mut index: Vec<String> = redis.call(&["ZRANGE", "segments", "0", "-1"]);
    let mut expected = names.map(str::to_owned).to_vec();
    index.sort();
    expected.sort();
    assert_eq!(index, expected);
    assert_eq!(redis.sets().len(), names.len() + 1);
}

/// Most clients resolve a path of dots, percent-encoded or not, before they send it; a plain one doesn't.
#[tokio::test]
async fn a_name_of_dots_is_a_name_too() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for name in [".", ".."] {
        app.record("u104010", name).await;
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", count_path(name));
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(&format!(r#"{{"segment":"{name}","count":1,"#)), "{answer}");
    }
}

#[tokio::test]
async fn any_user_id_comes_through() {
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
async fn a_content_type_may_have_parameters() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json ;charset=UTF-8"] {
        let request = app.request("POST", "/segments").header("content-type", content_type);
        let response = request.body(r#"{"user_id":"u104010","segment":"sports"}"#).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{content_type}");
    }
}

#[tokio::test]
async fn visits_made_at_once_are_all_counted() {
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
async fn a_visit_keeps_counting_while_it_is_repeated_and_expires_on_the_dot_otherwise() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("window", "2s")])).await;
    app.record("stays", "sports").await;
    app.record("leaves", "sports").await;
    assert_eq!(app.count("sports").await, 2);

    eventually("the user who left no longer counts", async || {
        app.record("stays", "sports").await;
        app.count("sports").await == 1
    })
    .await;
}

#[tokio::test]
async fn record_answers_what_became_of_a_visit_if_that_is_preferred() {
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
    // Of two visits the later stays, whatever came last.
    assert_eq!(redis.call::<f64>(&["ZSCORE", "segment:sports", "u1"]), (now - 60) as f64);
    // What is ahead of the clock, or has no time, is seen now.
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
    crate::helpers::problem(invalid, 422, "invalid-request").await;
}
