//! `GET /segments/{name}/count`.

use reqwest::StatusCode;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::{Redis, TestApp, count_path};

#[tokio::test]
async fn count_returns_the_segment_the_window_and_as_of() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;

    let response = app.get("/segments/sports/count").await;

    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let count: Value = response.json().await.unwrap();
    let as_of = count["as_of"].as_str().unwrap();
    assert_eq!(
        count,
        json!({ "segment": "sports", "known": true, "count": 1, "exact": true, "window_seconds": 1_209_600, "as_of": as_of })
    );
    let as_of = Timestamp::from_rfc3339(as_of).expect("as_of is RFC 3339");
    assert!((Timestamp::now().as_millis() - as_of.as_millis()).abs() < 60_000);
}

#[tokio::test]
async fn count_takes_a_shorter_window() {
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
async fn count_takes_any_segment_name() {
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

/// Most clients resolve a path of dots, percent-encoded or not, before they send it. So the test writes the request
/// itself.
#[tokio::test]
async fn count_takes_a_segment_name_of_dots() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for name in [".", ".."] {
        app.record("u104010", name).await;
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", count_path(name));
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(&format!(r#"{{"segment":"{name}","known":true,"count":1,"#)), "{answer}");
    }
}
