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

/// Returns `text` without the digits of the times, which differ between two answers.
fn without_digits(text: &str) -> String {
    text.replace(|character: char| character.is_ascii_digit(), "")
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
        "/segments/segment1/history.svg",
        "/segments/segment1/histogram.svg",
        "/overlap?segment=segment1&segment=segment2&segment=segment3&segment=segment4&segment=segment5&segment=segment6",
    ] {
        let (plain, packed) = (ask(&app, path, "identity").await, ask(&app, path, "br, gzip").await);
        assert!(!is_packed(&plain) && is_packed(&packed), "{path}");
        let mut vary = packed.headers().get_all("vary").into_iter();
        assert!(vary.any(|header| header == "accept-encoding"), "{path}");
        let (plain, packed) = (plain.bytes().await.unwrap(), packed.bytes().await.unwrap());
        assert!(packed.len() * 2 < plain.len(), "{path}: {} of {} bytes", packed.len(), plain.len());
        let mut text = String::new();
        GzDecoder::new(packed.as_ref()).read_to_string(&mut text).unwrap();
        let plain = String::from_utf8(plain.to_vec()).unwrap();
        assert_eq!(without_digits(&text), without_digits(&plain), "{path}");
    }
}

#[tokio::test]
async fn answer_is_not_compressed_if_the_caller_does_not_accept_gzip() {
    let redis = Redis::start();
    let app = app_with_segments(&redis).await;
    for encoding in ["identity;q=0", "br, *;q=0", "gzip;q=0", "br"] {
        for path in ["/", "/segments"] {
            assert!(!is_packed(&ask(&app, path, encoding).await), "{path}, {encoding}");
        }
    }
    assert!(is_packed(&ask(&app, "/", "identity;q=0, gzip").await));
}

#[tokio::test]
async fn page_is_not_compressed_for_a_page_of_another_site() {
    let redis = Redis::start();
    let app = app_with_segments(&redis).await;
    for (site, expected) in [("cross-site", false), ("same-origin", true), ("none", true)] {
        let request = app.request("GET", "/").header("accept-encoding", "gzip").header("sec-fetch-site", site);
        assert_eq!(is_packed(&request.send().await.unwrap()), expected, "{site}");
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
    for path in ["/pages/style.css", "/openapi.json", "/docs/start.js", "/docs/swagger-ui-bundle.js"] {
        let (plain, packed) = (ask(&app, path, "identity").await, ask(&app, path, "gzip").await);
        assert_eq!(plain.headers()["etag"], packed.headers()["etag"], "{path}");
        let known = app.request("GET", path).header("if-none-match", &plain.headers()["etag"]);
        let known = known.header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(
            (known.status().as_u16(), &known.headers()["vary"]),
            (304, &"accept-encoding".parse().unwrap()),
            "{path}"
        );
        assert_eq!(known.headers()["cache-control"], "no-cache", "{path}");
        assert!(known.bytes().await.unwrap().is_empty(), "{path}");
    }
}
