//! Invalid requests, each with the exact status and problem document.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Response, StatusCode};
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, count_path, in_time, problem, settings};

async fn post(app: &TestApp, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    app.request("POST", "/segments").header("content-type", content_type).body(body).send().await.unwrap()
}

#[tokio::test]
async fn record_rejects_a_body_that_is_not_json() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let bodies: [&[u8]; 6] =
        [b"", b"user_id=u1", b"{\"user_id\":", b"{\"user_id\":\"\xff\"}", b"[1,", b"{\"user_id\":\"a\"}]"];
    for body in bodies {
        let document = problem(post(&app, "application/json", body.to_vec()).await, 400, "malformed-request").await;
        let detail = document["detail"].as_str().unwrap();
        assert!(detail.starts_with("The body is not JSON: ") || detail == "The body is empty.", "{document}");
    }
}

#[tokio::test]
async fn record_rejects_two_visits_and_names_the_batch_route() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let document = problem(post(&app, "application/json", "{}\n{}").await, 400, "malformed-request").await;
    let detail =
        "The body is more than one JSON value; another begins at column 4. Send several visits to /segments/batch.";
    assert_eq!(document["detail"], detail);
}

#[tokio::test]
async fn record_rejects_json_that_is_not_a_visit() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for body in ["[]", "null", "1", "\"sports\"", "true"] {
        let document = problem(post(&app, "application/json", body).await, 422, "invalid-request").await;
        assert!(document["detail"].as_str().unwrap().starts_with("The body is not a visit: "), "{document}");
    }
}

#[tokio::test]
async fn record_names_every_invalid_field() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let tomorrow = Timestamp::now().as_millis() / 1000 + 86_400;
    let cases = [
        (json!({}), vec!["user_id", "segment"]),
        (json!({ "user_id": "u1" }), vec!["segment"]),
        (json!({ "user_id": 1, "segment": null, "seen_at": [] }), vec!["user_id", "segment", "seen_at"]),
        (json!({ "user_id": "", "segment": "a\nb" }), vec!["user_id", "segment"]),
        (json!({ "user_id": " u1", "segment": "s ", "seen_at": "now" }), vec!["user_id", "segment", "seen_at"]),
        (json!({ "user_id": "u".repeat(257), "segment": "s".repeat(129) }), vec!["user_id", "segment"]),
        (json!({ "user_id": "u1", "segment": "s", "seenAt": 1 }), vec!["seenAt"]),
        (json!({ "user_id": "u1", "segment": "s", "seen_at": tomorrow }), vec!["seen_at"]),
    ];
    for (visit, fields) in cases {
        let document = problem(app.post_visit(&visit).await, 422, "invalid-request").await;
        let errors = document["errors"].as_array().unwrap();
        let named: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{document}");
        assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    }
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn record_rejects_other_content_types() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let visit = r#"{"user_id":"u1","segment":"s"}"#;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "json"] {
        problem(post(&app, content_type, visit).await, 415, "unsupported-media-type").await;
    }
    let without = app.request("POST", "/segments").body(visit).send().await.unwrap();
    problem(without, 415, "unsupported-media-type").await;
    let gzipped = app.request("POST", "/segments").header("content-encoding", "gzip").json(&json!({}));
    problem(gzipped.send().await.unwrap(), 415, "unsupported-media-type").await;
}

#[tokio::test]
async fn record_rejects_a_body_that_is_too_large() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let document = problem(post(&app, "application/json", vec![b' '; 17 * 1024]).await, 413, "body-too-large").await;
    assert!(document["detail"].as_str().unwrap().contains("16384 bytes"), "{document}");

    // The same without a Content-Length.
    let mut stream = TcpStream::connect(app.address).unwrap();
    let head = "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(format!("5000\r\n{}\r\n", " ".repeat(0x5000)).as_bytes()).unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn record_takes_the_longest_visit() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let escape = |text: String| text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    let (user, segment) = (escape("u".repeat(256)), escape("s".repeat(128)));
    let body =
        format!(r#"{{"user_id":"{user}","segment":"{segment}","seen_at":"2026-11-22T10:00:00.000000000+00:00"}}"#);
    assert_eq!(post(&app, "application/json", body).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn unknown_path_is_404() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/page", "/segment", "/segments/", "/segments/sports/counts", "/segments/a/b/count", "/%00"] {
        problem(app.get(path).await, 404, "not-found").await;
    }
}

#[tokio::test]
async fn unknown_path_names_the_nearest_route() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (path, nearest) in [
        ("/segments/sports/counts", Some("/segments/sports/count")),
        ("/segment/sports/count?window=7d", Some("/segments/sports/count")),
        ("/segments/a/b/count", Some("/segments/a%2Fb/count")),
        ("/metric", Some("/metrics")),
        ("/wp-login.php", None),
    ] {
        let document = problem(app.get(path).await, 404, "not-found").await;
        let detail = document["detail"].as_str().unwrap();
        let suggested = detail.split_once(" Did you mean ").map(|(_, rest)| rest);
        assert_eq!(suggested, nearest.map(|path| format!("{path}?")).as_deref(), "{path}");
    }
}

#[tokio::test]
async fn other_method_is_405_with_the_allowed_ones() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (method, path, allow) in [
        ("PUT", "/segments", "POST,GET,HEAD"),
        ("DELETE", "/segments/sports/count", "GET,HEAD"),
        ("POST", "/livez", "GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
        ("POST", "/readyz", "GET,HEAD"),
    ] {
        let response = app.request(method, path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allow, "{method} {path}");
        let document = problem(response, 405, "method-not-allowed").await;
        assert_eq!(document["detail"], format!("The methods of this path are {}.", allow.replace(',', ", ")));
    }
}

#[tokio::test]
async fn count_rejects_an_invalid_name_or_query() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (path, field) in [
        ("/segments//count".to_owned(), "segment"),
        (count_path(" sports"), "segment"),
        (count_path("a\0b"), "segment"),
        (count_path(&"s".repeat(129)), "segment"),
        ("/segments/%FF/count".to_owned(), "segment"),
        ("/segments/sports/count?window=0s".to_owned(), "window"),
        ("/segments/sports/count?window=".to_owned(), "window"),
        ("/segments/sports/count?window=7".to_owned(), "window"),
        ("/segments/sports/count?window=500ms".to_owned(), "window"),
        ("/segments/sports/count?window=15d".to_owned(), "window"),
        ("/segments/sports/count?window=7d&window=6d".to_owned(), "window"),
        ("/segments/sports/count?windw=7d".to_owned(), "windw"),
    ] {
        let document = problem(app.get(&path).await, 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{path}: {document}");
    }
}

#[tokio::test]
async fn record_and_count_are_503_only_for_a_key_of_another_type() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);

    problem(app.get("/segments/broken/count").await, 503, "store-unavailable").await;
    let write = app.post_visit(&json!({ "user_id": "u1", "segment": "broken" })).await;
    problem(write, 503, "store-unavailable").await;

    app.record("u1", "sports").await;
    assert_eq!(app.count("sports").await, 1);
    assert_eq!(app.status_of("/readyz").await, 200);
    assert_eq!(redis.call::<String>(&["GET", "segment:broken"]), "not a sorted set");
}

#[tokio::test]
async fn request_id_of_the_caller_is_returned_if_valid() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let send = async |id: &str| {
        let response = app.request("GET", "/nowhere").header("x-request-id", id).send().await.unwrap();
        problem(response, 404, "not-found").await["request_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(send("abc-123").await, "abc-123");
    for id in ["two words", &"x".repeat(129)] {
        let generated = send(id).await;
        assert_eq!((generated == id, generated.len()), (false, 36), "{generated} is not a UUID");
    }
}

#[tokio::test]
async fn request_id_is_in_every_response() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let given = app.request("GET", "/healthz").header("x-request-id", "abc-123").send().await.unwrap();
    assert_eq!(given.headers()["x-request-id"], "abc-123");
    let mut generated = Vec::new();
    for _ in 0..2 {
        let response = app.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await;
        assert_eq!(response.status(), 204);
        generated.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    assert!(generated[0].len() == 36 && generated[0] != generated[1], "{generated:?}");
}

#[tokio::test]
async fn response_headers_forbid_sniffing_and_the_caching_of_problems() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    for (method, path, status) in [
        ("GET", "/segments/%3Csvg%20onload=alert(1)%3E/count", 200),
        ("GET", "/segments", 200),
        ("GET", "/users/u1/segments", 200),
        ("DELETE", "/users/u1", 200),
        ("GET", "/livez", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/swagger-ui-bundle.js", 200),
        ("GET", "/", 200),
        ("GET", "/pages/icon.svg", 200),
        ("HEAD", "/segments", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/pages/nowhere", 404),
        ("PUT", "/segments", 405),
        ("POST", "/segments", 415),
        ("GET", "/segments?limit=0", 422),
        ("GET", "/?sort=size", 422),
    ] {
        let response = app.request(method, path).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let all = |name: &str| response.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-content-type-options"), ["nosniff"], "{method} {path}");
        let caching = all("cache-control");
        assert_eq!(caching.len(), 1, "{method} {path}: {caching:?}");
        assert!(status == 200 || caching == ["no-store"], "{method} {path}: {caching:?}");
    }
    let nothing = app.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await;
    assert_eq!(nothing.headers().get("x-content-type-options"), None, "a response without a body");
}

#[tokio::test]
async fn header_timeout_closes_a_connection_without_a_complete_head() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("header_timeout", "200ms")])).await;
    for sent in ["", "POST /segments HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(app.address).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        // An incomplete request gets 408 or no response.
        let answer = read_answer(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test]
async fn body_timeout_answers_an_incomplete_body_with_408() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("body_timeout", "200ms")])).await;
    let mut stream = TcpStream::connect(app.address).unwrap();
    let head =
        "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();

    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let document: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(document["type"], "urn:segment-estimator:problem:body-timeout");
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_refused_with_http_1_1_required() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // curl sends SETTINGS and a request after the preface.
    let frames =
        [b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".as_slice(), &[0, 0, 4, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41]];
    for (frames, split) in [(Vec::new(), 24), (frames.concat(), 24), (Vec::new(), 1), (frames.concat(), 18)] {
        let mut stream = TcpStream::connect(app.address).unwrap();
        // The preface may arrive in pieces. After a request, the service has read the first one.
        stream.write_all(&preface[..split]).unwrap();
        app.count("sports").await;
        stream.write_all(&[&preface[split..], &frames].concat()).unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut answer = Vec::new();
            // The service half-closes the connection, and reads until the client closes it.
            stream.read_to_end(&mut answer).unwrap();
            answer
        });
        let answer = in_time("the refusal", read).await.unwrap();
        // SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED (RFC 9113, sections 6.5, 6.8 and 7).
        let (settings, goaway) = answer.split_at(9);
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!((goaway[3], &goaway[13..17]), (0x07, b"\0\0\0\x0d".as_slice()), "{goaway:?}");
        assert_eq!(&goaway[17..], b"this service speaks HTTP/1.1 alone");
    }
    assert_eq!(app.count("sports").await, 0);
}

/// Reads until the end of a problem document, or until the service closes the connection.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut stream = stream.try_clone().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"}\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
        String::from_utf8(answer).unwrap()
    });
    in_time("the response", read).await.unwrap()
}
