//! The header `Host`: HTTP/1.1 requires exactly one, HTTP/1.0 none.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::{Client, Redis, TestApp, in_time, settings, settings_with};

/// Sends `requests` on one connection, and returns all responses until the service closes it.
async fn exchange(address: SocketAddr, requests: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    in_time("the connection ends", stream.read_to_string(&mut answers)).await.unwrap();
    answers
}

/// Asserts that `answer` is a 400 with the reason `why` and the request's id.
#[track_caller]
fn assert_refused(answer: &str, why: &str) {
    assert_problem(answer, "400", "malformed-request", why);
}

/// Asserts that `answer` is a problem document with the reason `why` and the request's id.
#[track_caller]
fn assert_problem(answer: &str, status: &str, slug: &str, why: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {answer:?}"));
    assert_eq!(head.split(' ').nth(1), Some(status), "{answer}");
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{answer}");
    assert!(head.contains("\r\nx-request-id: from-the-test"), "{answer}");
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["type"], format!("urn:segment-estimator:problem:{slug}"));
    assert_eq!(document["request_id"], "from-the-test");
    assert!(document["detail"].as_str().unwrap().contains(why), "{document}");
}

#[tokio::test]
async fn host_is_required_exactly_once() {
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
async fn host_rejection_has_no_effect_and_keeps_the_connection() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let visit = r#"{"user_id":"u1","segment":"sports"}"#;
    let post = format!(
        "POST /segments HTTP/1.1\r\nx-request-id: from-the-test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{visit}",
        visit.len()
    );
    let count = "GET /segments/sports/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answers = exchange(app.address, &(post + count)).await;
    let (refusal, counted) = answers.split_once("}\n").unwrap();
    assert_refused(&format!("{refusal}}}"), "no Host");
    assert!(counted.starts_with("HTTP/1.1 200 ") && counted.contains(r#""count":0"#), "{counted}");
}

#[tokio::test]
async fn host_may_be_a_name_or_an_address() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for head in [
        "GET /healthz HTTP/1.1\r\nHost: segments.localhost:8080",
        "GET /healthz HTTP/1.1\r\nHost: [::1]:8080",
        "GET /healthz HTTP/1.1\r\nHost:",
        "GET http://x/healthz HTTP/1.1\r\nHost: localhost",
        "GET http://localhost/healthz HTTP/1.1\r\nHost: 127.0.0.1",
    ] {
        let answer = exchange(app.address, &format!("{head}\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{head}: {answer}");
    }
}

/// Returns a request as a browser sends it after DNS rebinding to this machine.
fn rebound(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: evil.example:8080\r\norigin: http://evil.example:8080\r\n\
         x-request-id: from-the-test\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn host_must_be_local_on_loopback_without_keys() {
    let redis = Redis::start();
    let settings = settings([("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    app.record("victim", "sports").await;
    for (method, path, body) in [
        ("POST", "/segments", r#"{"user_id":"made-up","segment":"sports"}"#),
        ("POST", "/segments/batch", r#"[{"user_id":"made-up","segment":"sports"}]"#),
        ("GET", "/users/victim/segments", ""),
        ("DELETE", "/users/victim", ""),
        ("GET", "/segments", ""),
        ("GET", "/openapi.json", ""),
        ("OPTIONS", "/segments", ""),
    ] {
        let answer = exchange(app.address, &rebound(method, path, body)).await;
        assert_problem(&answer, "421", "misdirected-request", "the setting allowed_hosts");
    }
    let page = exchange(app.address, &rebound("GET", "/", "")).await;
    assert!(page.starts_with("HTTP/1.1 421 ") && page.contains("<html") && !page.contains("sports"), "{page}");
    assert_eq!(app.count("sports").await, 1);
    // Orchestrators may use any name for probes.
    for path in ["/livez", "/healthz", "/readyz", "/metrics"] {
        let answer = exchange(app.admin_address.unwrap(), &rebound("GET", path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn allowed_hosts_are_served_and_no_others() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, "").unwrap();
    let keys = keys.display().to_string();
    for (allowed_hosts, has_keys, host, status) in [
        (Some("segments.example,*.inner.example"), false, "Segments.Example:8080", "404"),
        (Some("segments.example,*.inner.example"), false, "a.inner.example", "404"),
        (Some("segments.example"), false, "localhost", "404"),
        (Some("segments.example"), false, "other.example", "421"),
        (Some("segments.example"), true, "other.example", "421"),
        (Some("segments.example"), true, "127.0.0.1", "404"),
        (Some("*"), false, "other.example", "404"),
        // A service with keys may be reached by any name.
        (None, true, "other.example", "404"),
    ] {
        let mut changes = if has_keys { settings([("api_keys_file", &keys)]) } else { settings([]) };
        if let Some(hosts) = allowed_hosts {
            changes = settings_with(changes, [("allowed_hosts", hosts)]);
        }
        let app = TestApp::spawn_with(&redis, changes).await;
        let request = format!("GET /nowhere HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = exchange(app.address, &request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host} with {allowed_hosts:?}: {answer}");
    }
}

#[tokio::test]
async fn host_may_be_any_on_other_addresses_than_loopback() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("listen", "0.0.0.0:0")])).await;
    let request = "GET /healthz HTTP/1.1\r\nhost: estimator:8080\r\nconnection: close\r\n\r\n";
    let address = ([127, 0, 0, 1], app.address.port()).into();
    assert!(exchange(address, request).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn host_is_optional_in_http_1_0() {
    let redis = Redis::start();
    let settings = settings([("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let admin = Client::new(app.admin_address.unwrap());
    for (address, path) in [(admin.address, "/healthz"), (app.address, "/segments/sports/count")] {
        let answer = exchange(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    }
}

#[tokio::test]
async fn host_is_required_in_a_preflight() {
    let redis = Redis::start();
    let settings = settings([("cors_origins", "https://app.example.com")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let preflight = "OPTIONS /segments HTTP/1.1\r\norigin: https://app.example.com\r\nx-request-id: from-the-test\r\n\
                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    assert_refused(&exchange(app.address, preflight).await, "no Host");
}
