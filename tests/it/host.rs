//! The header `Host`: HTTP/1.1 demands exactly one, HTTP/1.0 none.

use std::net::SocketAddr;

use segment_estimator::settings::Layer;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::{Client, Redis, TestApp, in_time};

/// Sends `requests` on one connection, and gives what comes back until the service closes it.
async fn exchange(address: SocketAddr, requests: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    in_time("the connection's end", stream.read_to_string(&mut answers)).await.unwrap();
    answers
}

/// Checks that `answer` is a 400 that says `why`, with the request's id in it.
fn assert_refused(answer: &str, why: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert_eq!(head.split(' ').nth(1), Some("400"), "{answer}");
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{answer}");
    assert!(head.contains("\r\nx-request-id: from-the-test"), "{answer}");
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["type"], "urn:segment-estimator:problem:malformed-request");
    assert_eq!(document["request_id"], "from-the-test");
    assert!(document["detail"].as_str().unwrap().contains(why), "{document}");
}

#[tokio::test]
async fn without_exactly_one_good_host_a_request_is_400() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (line, hosts, why) in [
        ("GET /healthz HTTP/1.1", "", "no Host"),
        ("GET /nowhere HTTP/1.1", "", "no Host"),
        ("GET http://x/healthz HTTP/1.1", "", "no Host"),
        ("GET /healthz HTTP/1.1", "host: x\r\nhost: x\r\n", "more than one Host"),
        ("GET /healthz HTTP/1.0", "host: x\r\nhost: y\r\n", "more than one Host"),
        ("GET /healthz HTTP/1.1", "host: x, y\r\n", "a name or an address"),
        ("GET /healthz HTTP/1.1", "host: somebody@x\r\n", "a name or an address"),
    ] {
        let request = format!("{line}\r\n{hosts}x-request-id: from-the-test\r\nconnection: close\r\n\r\n");
        assert_refused(&exchange(app.address, &request).await, why);
    }
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"estimator_http_requests_total{route="unmatched",method="any",status="400"} 7"#,
        r#"estimator_http_problems_total{type="malformed-request"} 7"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_refused_request_does_nothing_and_its_connection_goes_on() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let visit = r#"{"user_id":"u1","segment":"sports"}"#;
    let post = format!(
        "POST /segments HTTP/1.1\r\nx-request-id: from-the-test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{visit}",
        visit.len()
    );
    let count = "GET /segments/sports/count HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = exchange(app.address, &(post + count)).await;
    let (refusal, counted) = answers.split_once("}\n").unwrap();
    assert_refused(&format!("{refusal}}}"), "no Host");
    assert!(counted.starts_with("HTTP/1.1 200 ") && counted.contains(r#""count":0"#), "{counted}");
}

#[tokio::test]
async fn one_host_is_enough_whatever_it_names() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for head in [
        "GET /healthz HTTP/1.1\r\nHost: segments.example.com:8080",
        "GET /healthz HTTP/1.1\r\nHost: [::1]:8080",
        "GET /healthz HTTP/1.1\r\nHost:",
        "GET http://x/healthz HTTP/1.1\r\nHost: x",
        "GET http://x/healthz HTTP/1.1\r\nHost: y",
    ] {
        let answer = exchange(app.address, &format!("{head}\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{head}: {answer}");
    }
}

#[tokio::test]
async fn http_1_0_needs_no_host_and_its_connection_closes() {
    let redis = Redis::start();
    let settings = Layer { admin_listen: Some("127.0.0.1:0".to_owned()), ..Layer::default() };
    let app = TestApp::spawn_with(&redis, settings).await;
    let admin = Client::new(app.admin_addr.unwrap());
    for (address, path) in [(admin.address, "/healthz"), (app.address, "/segments/sports/count")] {
        let answer = exchange(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_preflight_without_a_host_is_not_answered_by_cors() {
    let redis = Redis::start();
    let settings = Layer { cors_origins: Some("https://app.example.com".to_owned()), ..Layer::default() };
    let app = TestApp::spawn_with(&redis, settings).await;
    let preflight = "OPTIONS /segments HTTP/1.1\r\norigin: https://app.example.com\r\nx-request-id: from-the-test\r\n\
                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    assert_refused(&exchange(app.address, preflight).await, "no Host");
}
