//! Long answers are compressed for callers that accept it.

use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::Response;

use crate::helpers::{Redis, TestApp};

async fn ask(app: &TestApp, path: &str, encoding: &str) -> Response {
    let response = app.request("GET", path).header("accept-encoding", encoding).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
}

fn is_packed(response: &Response) -> bool {
    response.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip")
}

async fn app_with_segments(redis: &Redis) -> TestApp {
    let app = TestApp::spawn(redis).await;
    let visits = (0..100).map(|at| format!("{{\"user_id\":\"u1\",\"segment\":\"segment{at}\"}}\n"));
    assert_eq!(app.post_lines(visits.collect::<String>()).await.status(), 200);
    app
}

#[tokio::test]
async fn long_answers_are_compressed_for_callers_that_accept_gzip() {
    let redis = Redis::start();
    let app = app_with_segments(&redis).await;
    for path in [
        "/",
        "/pages/segment?name=segment1",
        "/pages/overlap?segment=segment1&segment=segment2",
        "/pages/style.css",
        "/openapi.json",
        "/segments",
        "/segments/segment1/history",
        "/overlap?segment=segment1&segment=segment2&segment=segment3&segment=segment4&segment=segment5&segment=segment6",
    ] {
        let (plain, packed) = (ask(&app, path, "identity").await, ask(&app, path, "br, gzip").await);
        assert!(!is_packed(&plain) && is_packed(&packed), "{path}");
        assert_eq!(packed.headers()["vary"], "accept-encoding", "{path}");
        let (plain, packed) = (plain.bytes().await.unwrap(), packed.bytes().await.unwrap());
        assert!(packed.len() * 2 < plain.len(), "{path}: {} of {} bytes", packed.len(), plain.len());
        let mut text = String::new();
        GzDecoder::new(packed.as_ref()).read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), plain.len(), "{path}");
    }
}

#[tokio::test]
async fn short_answers_are_not_compressed() {
    let redis = Redis::start();
    let app = app_with_segments(&redis).await;
    for path in ["/segments/segment1/count", "/segments?limit=1", "/pages/icon.svg"] {
        assert!(!is_packed(&ask(&app, path, "gzip").await), "{path}");
    }
}

#[tokio::test]
async fn file_has_the_same_tag_compressed_and_plain() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/pages/style.css", "/openapi.json", "/docs/start.js"] {
        let (plain, packed) = (ask(&app, path, "identity").await, ask(&app, path, "gzip").await);
        assert_eq!(plain.headers()["etag"], packed.headers()["etag"], "{path}");
        let known = app.request("GET", path).header("if-none-match", &plain.headers()["etag"]);
        let known = known.header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(known.status(), 304, "{path}");
        assert!(known.bytes().await.unwrap().is_empty(), "{path}");
    }
}
