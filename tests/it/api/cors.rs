//! Requests of pages from other origins: `cors_origins`.

use reqwest::Response;
use segment_estimator::config::RawSettings;
use serde_json::json;

use crate::helpers::{Redis, TestApp, problem, settings};

const PAGE: &str = "https://app.example";

async fn app(redis: &Redis, origins: Option<&str>) -> TestApp {
    let changes = origins.map_or_else(RawSettings::default, |origins| settings([("cors_origins", origins)]));
    TestApp::spawn_with(redis, changes).await
}

async fn preflight(app: &TestApp, origin: &str) -> Response {
    let request = app.request("OPTIONS", "/segments").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn cors_lets_a_listed_origin_call_and_read_answers_and_problems() {
    let redis = Redis::start();
    let app = app(&redis, Some("https://other.example,https://app.example")).await;
    let allowed = preflight(&app, PAGE).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(header(&allowed, "access-control-allow-origin"), Some(PAGE));
    assert!(header(&allowed, "access-control-allow-headers").unwrap().contains("authorization"));
    assert!(header(&allowed, "access-control-allow-methods").unwrap().contains("POST"));

    let visit =
        app.request("POST", "/segments").header("origin", PAGE).json(&json!({ "user_id": "u", "segment": "s" }));
    let response = visit.send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "access-control-allow-origin")), (204, Some(PAGE)));
    let response = app.request("GET", "/segments/%20/count").header("origin", PAGE).send().await.unwrap();
    assert_eq!(header(&response, "access-control-allow-origin"), Some(PAGE));
    let exposed = header(&response, "access-control-expose-headers").unwrap();
    assert!(exposed.contains("x-request-id") && exposed.contains("link"), "{exposed}");
    problem(response, 422, "invalid-request").await;
    let response = app.request("DELETE", "/segments").header("origin", PAGE).send().await.unwrap();
    assert_eq!(header(&response, "allow"), Some("POST,GET,HEAD"));
    problem(response, 405, "method-not-allowed").await;
}

#[tokio::test]
async fn cors_lets_no_other_origin_call() {
    let redis = Redis::start();
    for (origins, origin) in [(None, PAGE), (Some(PAGE), "https://app.example.evil"), (Some(PAGE), "null")] {
        let app = app(&redis, origins).await;
        assert_eq!(header(&preflight(&app, origin).await, "access-control-allow-origin"), None);
        let response = app.request("GET", "/segments/sports/count").header("origin", origin).send().await.unwrap();
        assert_eq!(header(&response, "access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn cors_lets_every_origin_call_with_an_asterisk() {
    let redis = Redis::start();
    let app = app(&redis, Some("*")).await;
    assert_eq!(header(&preflight(&app, PAGE).await, "access-control-allow-origin"), Some("*"));
}
