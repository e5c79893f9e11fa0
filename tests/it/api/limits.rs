//! Limits on requests and connections.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::helpers::{Proxy, Redis, TestApp, eventually, in_time, problem, settings};

#[tokio::test]
async fn request_timeout_ends_requests_with_503() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("request_timeout", "200ms"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;

    proxy.hold_replies();
    let visit = json!({ "user_id": "u2", "segment": "sports" });
    for answer in [
        in_time("a visit ends at its deadline", app.post_visit(&visit)).await,
        in_time("an array ends at its deadline", app.post_array(&json!([visit]))).await,
        in_time("a count ends at its deadline", app.get("/segments/sports/count")).await,
    ] {
        problem(answer, 503, "request-timeout").await;
    }
    proxy.release_replies();
    eventually("the service counts again", async || app.status_of("/segments/sports/count").await == 200).await;
}

#[tokio::test]
async fn max_requests_refuses_excess_requests_and_no_probes() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_requests", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;

    proxy.hold_replies();
    let visit = json!({ "user_id": "u2", "segment": "sports" });
    let first = tokio::spawn(app.request("POST", "/segments").json(&visit).send());
    app.eventually_in_flight(1).await;
    let document = problem(app.get("/segments/sports/count").await, 503, "overloaded").await;
    assert!(document["detail"].as_str().unwrap().contains("requests in flight, 1, is reached"), "{document}");
    assert_eq!(app.status_of("/healthz").await, 200);

    proxy.release_replies();
    assert_eq!(first.await.unwrap().unwrap().status(), 204);
    assert_eq!(app.count("sports").await, 2);
}

#[tokio::test]
async fn max_connections_makes_further_connections_wait() {
    async fn post(stream: &mut TcpStream, user: &str) {
        let body = format!(r#"{{"user_id":"{user}","segment":"sports"}}"#);
        let head = format!(
            "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }
    async fn status(stream: &mut TcpStream) -> String {
        let mut answer = vec![0; 1_000];
        let length = in_time("the response", stream.read(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap_or_default().to_owned()
    }

    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_connections", "1")])).await;
    let mut first = TcpStream::connect(app.address).await.unwrap();
    post(&mut first, "u1").await;
    assert_eq!(status(&mut first).await, "204");
    let mut second = TcpStream::connect(app.address).await.unwrap();
    post(&mut second, "u2").await;
    for _ in 0..50 {
        post(&mut first, "u1").await;
        assert_eq!(status(&mut first).await, "204");
    }
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 1, "the second connection waits");

    drop(first);
    assert_eq!(status(&mut second).await, "204");
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 2);
}

#[tokio::test]
async fn header_timeout_cuts_off_a_client_that_never_reads() {
    let redis = Redis::start();
    let settings = settings([("max_connections", "1"), ("header_timeout", "200ms")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let silent = TcpSocket::new_v4().unwrap();
    silent.set_recv_buffer_size(4_096).unwrap();
    let mut silent = silent.connect(app.address).await.unwrap();
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n";
    silent.write_all(request.repeat(50).as_bytes()).await.unwrap();
    // No other connection is accepted until the first one is closed.
    let other = app.request("GET", "/healthz").send();
    assert_eq!(in_time("the other connection is served", other).await.unwrap().status(), 200);
    drop(silent);
}

#[tokio::test]
async fn max_body_bytes_limits_bodies_and_no_streams() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_body_bytes", "100")])).await;
    app.record("u1", "sports").await;
    let long = json!({ "user_id": "u".repeat(100), "segment": "sports" });
    problem(app.post_visit(&long).await, 413, "body-too-large").await;
    problem(app.post_array(&json!([long])).await, 413, "body-too-large").await;
    assert_eq!(app.post_lines(format!("{long}\n{long}\n")).await.status(), 200);
    assert_eq!(app.count("sports").await, 2);
}

#[tokio::test]
async fn max_header_bytes_limits_heads() {
    let redis = Redis::start();
    let lenient = TestApp::spawn(&redis).await;
    let strict = TestApp::spawn_with(&redis, settings([("max_header_bytes", "8192")])).await;
    for (app, expected) in [(&lenient, 200), (&strict, 431)] {
        let request = app.request("GET", "/healthz").header("x-filler", "x".repeat(10_000));
        assert_eq!(request.send().await.unwrap().status().as_u16(), expected);
    }
}
