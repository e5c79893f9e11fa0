//! `POST /segments/batch`: arrays and streams of lines.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Response;
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Proxy, Redis, TestApp, Upload, eventually, in_time, problem, settings};

async fn app() -> (Redis, TestApp) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    (redis, app)
}

fn line(user: &str, segment: &str) -> String {
    format!("{{\"user_id\":\"{user}\",\"segment\":\"{segment}\"}}\n")
}

/// Asserts that a batch was accepted, and returns its report.
#[track_caller]
fn accepted(response: Response) -> impl Future<Output = Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    async { response.json().await.unwrap() }
}

fn all_accepted(accepted: u64) -> Value {
    json!({ "accepted": accepted, "expired": 0, "rejected": 0, "errors": [], "errors_truncated": false })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post_gzip(app: &TestApp, content_type: &str, body: Vec<u8>) -> Response {
    let request = app.request("POST", "/segments/batch").header("content-type", content_type);
    request.header("content-encoding", "gzip").body(body).send().await.unwrap()
}

#[tokio::test]
async fn batch_records_an_array() {
    let (redis, app) = app().await;
    let now = Timestamp::now().as_millis() / 1000;
    let visits = json!([
        { "user_id": "u1", "segment": "sports" },
        { "user_id": "u2", "segment": "sports", "seen_at": now - 60 },
        { "user_id": "u1", "segment": "news" },
        { "user_id": "u1", "segment": "sports" },
        { "user_id": "u3", "segment": "sports", "seen_at": 0 },
    ]);
    let report = accepted(app.post_array(&visits).await).await;
    let expected = json!({ "accepted": 4, "expired": 1, "rejected": 0, "errors": [], "errors_truncated": false });
    assert_eq!(report, expected);
    assert_eq!((app.count("sports").await, app.count("news").await), (2, 1));
    assert_eq!(redis.call::<f64>(&["ZSCORE", "segment:sports", "u2"]), (now - 60) as f64);
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["news", "sports"]);
}

#[tokio::test]
async fn batch_names_bad_visits_of_an_array_by_position() {
    let (_redis, app) = app().await;
    let visits = json!([
        { "user_id": "u1", "segment": "sports" },
        { "user_id": "", "segment": 7 },
        "sports",
        { "user_id": "u2", "segment": "sports", "seenat": 1 },
    ]);
    let report = accepted(app.post_array(&visits).await).await;
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(1), &json!(3)));
    let detail = "it must be one object with user_id, segment or segments, and optionally seen_at, not a string";
    assert_eq!(
        report["errors"],
        json!([
            { "line": 2, "field": "user_id", "detail": "must not be empty" },
            { "line": 2, "field": "segment", "detail": "must be a string, not a number" },
            { "line": 3, "detail": detail },
            { "line": 4, "field": "seenat", "detail": "is not a field of a visit; those are user_id, segment or segments, and seen_at" },
        ])
    );
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn batch_accepts_a_body_without_visits() {
    let (redis, app) = app().await;
    assert_eq!(accepted(app.post_array(&json!([])).await).await, all_accepted(0));
    assert_eq!(accepted(app.post_lines("").await).await, all_accepted(0));
    assert_eq!(accepted(app.post_lines("\r\n\n  \n").await).await, all_accepted(0));
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn batch_is_422_without_a_valid_visit() {
    let (redis, app) = app().await;
    let by_array = app.post_array(&json!([{ "user_id": "u1" }])).await;
    let by_line = app.post_lines(r#"{"user_id":"u1"}"#).await;
    for response in [by_array, by_line] {
        let document = problem(response, 422, "invalid-request").await;
        assert_eq!((&document["accepted"], &document["rejected"]), (&json!(0), &json!(1)), "{document}");
        assert_eq!(
            document["errors"],
            json!([{ "line": 1, "field": "segment", "detail": "is required, or segments" }])
        );
    }
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn batch_rejects_other_bodies_with_the_reason() {
    let (redis, app) = app().await;
    let post = async |content_type: &str, body: String| {
        let request = app.request("POST", "/segments/batch").header("content-type", content_type);
        request.body(body).send().await.unwrap()
    };
    let says =
        |document: &Value, text: &str| assert!(document["detail"].as_str().unwrap().contains(text), "{document}");

    let visit = json!({ "user_id": "u1", "segment": "sports" });
    let response = post("application/json", visit.to_string()).await;
    says(&problem(response, 422, "invalid-request").await, "must be a JSON array of visits");
    problem(post("application/json", "[{]".to_owned()).await, 400, "malformed-request").await;
    for empty in ["", " \n"] {
        let response = post("application/json", empty.to_owned()).await;
        let document = problem(response, 400, "malformed-request").await;
        says(&document, "The body is empty; it must be a JSON array of visits.");
    }
    for lines in [line("u1", "sports").repeat(2), "[]\n{}".to_owned()] {
        let document = problem(post("application/json", lines).await, 400, "malformed-request").await;
        says(&document, "The body is more than one JSON value; it must be a JSON array of visits.");
        says(&document, "one visit per line as application/x-ndjson");
    }
    let response = post("application/json", format!("\u{FEFF}[{visit}]")).await;
    says(&problem(response, 400, "malformed-request").await, "begins with a byte order mark");
    let response = post("application/json", "{\"user_id\": u1}".to_owned()).await;
    says(&problem(response, 400, "malformed-request").await, "not JSON: expected value at line 1 column 13");
    let response = post("application/json", json!(vec![&visit; 1_001]).to_string()).await;
    says(&problem(response, 413, "body-too-large").await, "1001 visits; at most 1000");
    let response = post("application/json", format!("[{}]", " ".repeat(1024 * 1024))).await;
    says(&problem(response, 413, "body-too-large").await, "1048576 bytes");
    let response = post("text/csv", line("u1", "sports")).await;
    says(&problem(response, 415, "unsupported-media-type").await, "application/json or application/x-ndjson");
    let request = app.request("POST", "/segments/batch").header("content-encoding", "br");
    let response = request.json(&json!([visit])).send().await.unwrap();
    says(&problem(response, 415, "unsupported-media-type").await, "Content-Encoding");
    assert!(redis.sets().is_empty());

    assert_eq!(accepted(app.post_array(&json!(vec![&visit; 1_000])).await).await, all_accepted(1_000));
}

#[tokio::test]
async fn batch_and_record_name_gzip_without_content_encoding() {
    let (_redis, app) = app().await;
    let detail = "not JSON: it is compressed with gzip, and no content-encoding says so";
    let array = gzip(b"[{\"user_id\":\"u1\",\"segment\":\"sports\"}]");
    for (path, body) in [("/segments/batch", array), ("/segments", gzip(b"{}"))] {
        let request = app.request("POST", path).header("content-type", "application/json").body(body);
        let document = problem(request.send().await.unwrap(), 400, "malformed-request").await;
        assert_eq!(document["detail"], format!("The body is {detail}."));
    }
    let document = problem(app.post_lines(gzip(line("u1", "sports").as_bytes())).await, 422, "invalid-request").await;
    assert_eq!(document["errors"][0], json!({ "line": 1, "detail": detail }));
}

/// `curl -d @file` sends such a body.
#[tokio::test]
async fn batch_explains_lines_without_line_ends() {
    let (redis, app) = app().await;
    let hint =
        " The body is a single line: curl removes a file's line ends with -d, and keeps them with --data-binary.";
    let visit = line("u1", "sports").trim().to_owned();
    let column = visit.len() + 1;
    let several = format!("more than one JSON value; another begins at column {column}; a line holds one visit");
    for (visits, detail) in [(3, several.as_str()), (1_000, "is longer than 16384 bytes")] {
        let document = problem(app.post_lines(visit.repeat(visits)).await, 422, "invalid-request").await;
        assert_eq!(document["errors"], json!([{ "line": 1, "detail": detail }]));
        assert!(document["detail"].as_str().unwrap().ends_with(hint), "{document}");
    }
    for other in [format!("{visit}{visit}\n{{}}\n"), "{}\n".to_owned()] {
        let document = problem(app.post_lines(other).await, 422, "invalid-request").await;
        assert!(!document["detail"].as_str().unwrap().contains("curl"), "{document}");
    }
    // An array on one line or on several, and a line that is no array.
    let hint = " The body is a JSON array: send it with content-type: application/json.";
    for (array, is_hinted) in
        [(format!("[{visit}]"), true), (format!(" \n[\n{visit},\n7]\n"), true), ("7\n[]".into(), false)]
    {
        let document = problem(app.post_lines(array).await, 422, "invalid-request").await;
        assert_eq!(document["detail"].as_str().unwrap().ends_with(hint), is_hinted, "{document}");
    }
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn batch_rejects_the_first_line_after_a_byte_order_mark() {
    let (_redis, app) = app().await;
    let lines = format!("\u{FEFF}{}{}", line("u1", "sports"), line("u2", "sports"));
    let report = accepted(app.post_lines(lines).await).await;
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(1), &json!(1)));
    let detail = "not JSON: it begins with a byte order mark (EF BB BF), which must be left out";
    assert_eq!(report["errors"], json!([{ "line": 1, "detail": detail }]));
}

#[tokio::test]
async fn batch_gives_the_same_result_wherever_chunks_end() {
    let (_redis, app) = app().await;
    let mut stream = Vec::new();
    stream.extend_from_slice(b"{\"user_id\":\"u1\",\"segment\":\"sp\xC3\xB6rt\"}\r\n\n");
    stream.extend_from_slice(b"nonsense\n{\"user_id\":\"\xFF\",\"segment\":\"sports\"}\n");
    stream.extend_from_slice(b"{\"user_id\":\"u2\",\"segment\":\"sp\xC3\xB6rt\"}");
    let expected = json!({
        "accepted": 2,
        "expired": 0,
        "rejected": 2,
        "errors": [
            { "line": 3, "detail": "not JSON: expected ident at column 2" },
            { "line": 4, "detail": "not JSON: byte 13 is not UTF-8" },
        ],
        "errors_truncated": false,
    });
    for cut in 0..stream.len() {
        let mut upload = Upload::begin(app.address).await;
        for piece in [&stream[..cut], &stream[cut..]] {
            if !piece.is_empty() {
                upload.send(piece).await;
            }
        }
        assert_eq!(upload.end().await, (200, expected.clone()), "cut at {cut}");
    }
    let mut upload = Upload::begin(app.address).await;
    for byte in &stream {
        upload.send(&[*byte]).await;
    }
    assert_eq!(upload.end().await, (200, expected));
    assert_eq!(app.count("spört").await, 2);
}

#[tokio::test]
async fn batch_records_a_long_stream_and_names_its_bad_lines() {
    const LINES: usize = 100_000;
    let (redis, app) = app().await;
    let mut stream = String::new();
    for n in 1..=LINES {
        match n % 1_000 {
            // Ninety-nine invalid lines, and one that is too long.
            0 if n == LINES / 2 => stream.push_str(&format!("\"{}\"\n", "x".repeat(20_000))),
            0 => stream.push_str("{\"user_id\":\"u1\"}\n"),
            _ => stream.push_str(&line(&format!("u{}", n % 7_919), &format!("segment-{}", n % 30))),
        }
    }
    let report = accepted(app.post_lines(stream).await).await;

    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(LINES - 100), &json!(100)));
    let errors = report["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &report["errors_truncated"]), (100, &json!(false)));
    for (index, error) in errors.iter().enumerate() {
        assert_eq!(error["line"], (index + 1) * 1_000);
    }
    assert_eq!(errors[49], json!({ "line": LINES / 2, "detail": "is longer than 16384 bytes" }));
    let expected: u64 = (0..30)
        .map(|segment| {
            let users = (1..=LINES).filter(|n| n % 30 == segment && n % 1_000 != 0).map(|n| n % 7_919);
            users.collect::<std::collections::HashSet<_>>().len() as u64
        })
        .sum();
    let stored =
        (0..30).map(|segment| redis.call::<u64>(&["ZCARD", &format!("segment:segment-{segment}")])).sum::<u64>();
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn batch_lists_a_hundred_errors_and_counts_the_rest() {
    let (_redis, app) = app().await;
    let report = accepted(app.post_lines(format!("{}{}", "{}\n".repeat(80), line("u1", "sports"))).await).await;
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(1), &json!(80)));
    // Two errors a line.
    assert_eq!((report["errors"].as_array().unwrap().len(), &report["errors_truncated"]), (100, &json!(true)));
}

#[tokio::test]
async fn batch_records_slow_lines_as_they_arrive() {
    let (_redis, app) = app().await;
    let mut upload = Upload::begin(app.address).await;
    for n in 1..=3 {
        upload.send(line(&format!("u{n}"), "sports").as_bytes()).await;
        eventually("the line is recorded", async || app.count("sports").await == n).await;
    }
    assert_eq!(upload.end().await, (200, all_accepted(3)));
}

#[tokio::test]
async fn batch_records_gzip() {
    let (_redis, app) = app().await;
    let lines: String = (0..20_000).map(|n| line(&format!("u{n}"), "sports")).collect();
    // Tools append to a compressed file by adding a gzip member.
    let (first, second) = lines.split_at(lines.len() / 3);
    let body = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    let response = post_gzip(&app, "application/x-ndjson", body).await;
    assert_eq!(accepted(response).await, all_accepted(20_000));
    let array = json!([{ "user_id": "u1", "segment": "news" }]).to_string();
    assert_eq!(accepted(post_gzip(&app, "application/json", gzip(array.as_bytes())).await).await, all_accepted(1));
    assert_eq!((app.count("sports").await, app.count("news").await), (20_000, 1));
}

#[rstest]
#[case::none(0)]
#[case::one_byte(1)]
#[case::one_block(512)]
#[case::more_than_a_buffer(300_000)]
#[tokio::test]
async fn batch_ignores_zeros_after_gzip_and_rejects_other_bytes(#[case] zeros: usize) {
    let (_redis, app) = app().await;
    let lines = [line("u1", "sports"), line("u2", "sports")].concat();
    let padded = [gzip(b""), gzip(lines.as_bytes()), vec![0; zeros]].concat();
    let response = post_gzip(&app, "application/x-ndjson", padded.clone()).await;
    assert_eq!(accepted(response).await, all_accepted(2));
    let array = json!([{ "user_id": "u1", "segment": "news" }]).to_string();
    let array = [gzip(array.as_bytes()), vec![0; zeros]].concat();
    assert_eq!(accepted(post_gzip(&app, "application/json", array).await).await, all_accepted(1));

    let followed = [padded, b"x".to_vec()].concat();
    let document = problem(post_gzip(&app, "application/x-ndjson", followed).await, 400, "malformed-request").await;
    let detail = "The body could not be read to its end: bytes that are no gzip follow the gzip data.";
    assert_eq!(
        (&document["detail"], &document["accepted"], &document["done_through_line"]),
        (&json!(detail), &json!(2), &json!(2))
    );
}

#[rstest]
#[case::gzip("gzip")]
#[case::gzip_in_capitals("GZIP")]
#[case::x_gzip("x-gzip")]
#[case::x_gzip_in_capitals("X-GZip")]
#[tokio::test]
async fn batch_takes_gzip_by_both_its_names(#[case] name: &str) {
    let (_redis, app) = app().await;
    let request = app.request("POST", "/segments/batch").header("content-type", "application/x-ndjson");
    let body = gzip(line("u1", "sports").as_bytes());
    let response = request.header("content-encoding", name).body(body).send().await.unwrap();
    assert_eq!(accepted(response).await, all_accepted(1));
}

#[tokio::test]
async fn batch_of_truncated_gzip_reports_what_was_recorded() {
    let (_redis, app) = app().await;
    let lines: String = (0..20_000).map(|n| line(&format!("u{}", n * n), "sports")).collect();
    let body = gzip(lines.as_bytes());
    let response = post_gzip(&app, "application/x-ndjson", body[..body.len() / 2].to_vec()).await;
    let document = problem(response, 400, "malformed-request").await;
    let accepted = document["accepted"].as_u64().unwrap();
    assert!((1..20_000).contains(&accepted), "{document}");
    assert_eq!(document["done_through_line"], accepted);
    assert_eq!(app.count("sports").await, accepted);

    problem(post_gzip(&app, "application/json", b"not gzip".to_vec()).await, 400, "malformed-request").await;
}

#[tokio::test]
async fn batch_rejects_a_decompression_bomb() {
    let (_redis, app) = app().await;
    let bomb = gzip(&vec![b'['; 64 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    problem(post_gzip(&app, "application/json", bomb.clone()).await, 413, "body-too-large").await;
    let document = problem(post_gzip(&app, "application/x-ndjson", bomb).await, 413, "body-too-large").await;
    assert!(document["detail"].as_str().unwrap().contains("more than 200 times its size"), "{document}");
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(0), &json!(0)));
}

#[rstest]
#[case::blank_lines("\n")]
#[case::one_visit("{\"user_id\":\"u1\",\"segment\":\"sports\"}\n")]
#[case::one_expired_visit("{\"user_id\":\"u1\",\"segment\":\"sports\",\"seen_at\":1}\n")]
#[tokio::test]
async fn batch_ends_when_it_unpacks_to_too_much(#[case] line: &str) {
    let (_redis, app) = app().await;
    let body = gzip(line.repeat(8_000_000 / line.len()).as_bytes());
    let document = problem(post_gzip(&app, "application/x-ndjson", body.clone()).await, 413, "body-too-large").await;
    let done = document["done_through_line"].as_u64().unwrap();
    let (max, line) = (1024 * 1024 + 200 * body.len() as u64, line.len() as u64);
    assert!(done * line <= max, "{done} lines of {line} bytes are more than {max} bytes: {document}");
    let valid = document["accepted"].as_u64().unwrap() + document["expired"].as_u64().unwrap();
    assert!(valid == done || line == 1, "{document}");
    problem(post_gzip(&app, "application/json", gzip(&vec![b' '; 8_000_000])).await, 413, "body-too-large").await;
}

/// Gzip shrinks real visits to between a quarter and a 120th.
#[tokio::test]
async fn batch_takes_visits_that_compress_well() {
    let (_redis, app) = app().await;
    let segment = "s".repeat(128);
    let user = |n: usize| format!("{}{n:06}", "tenant-".repeat(35));
    let lines: String = (0..20_000).map(|n| line(&user(n), &segment)).collect();
    let body = gzip(lines.as_bytes());
    assert!(lines.len() / body.len() > 80, "{}", lines.len() / body.len());
    assert_eq!(accepted(post_gzip(&app, "application/x-ndjson", body).await).await, all_accepted(20_000));
}

#[rstest]
#[case::not_json("x", 10_000)]
#[case::wrong_fields("{\"user_id\":\"\",\"segment\":\"sports\"}", 10_000)]
#[case::too_long(&"x".repeat(17_000), 10_000)]
#[tokio::test]
async fn batch_ends_after_too_many_rejected_lines_in_a_row(#[case] bad: &str, #[case] in_a_row: u64) {
    let (_redis, app) = app().await;
    let good: String = (0..300).map(|n| line(&format!("u{n}"), "sports")).collect();
    // The lines after the rejected ones are not read.
    let lines = [good, format!("{bad}\n").repeat(10_500), line("late", "news")].concat();
    let document = problem(app.post_lines(lines).await, 422, "too-many-rejected").await;
    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(300), &json!(in_a_row)));
    assert_eq!(document["done_through_line"], json!(300 + in_a_row));
    assert_eq!(document["errors"].as_array().unwrap().len(), 100);
    assert!(document["detail"].as_str().unwrap().contains("10000 lines in a row, or most of 100000"), "{document}");
    assert_eq!((app.count("sports").await, app.count("news").await), (300, 0));
}

#[tokio::test]
async fn batch_ends_if_most_of_a_hundred_thousand_lines_are_rejected() {
    let (_redis, app) = app().await;
    let lines: String =
        (0..150_000).map(|n| if n % 3 == 0 { line(&format!("u{n}"), "sports") } else { "x\n".to_owned() }).collect();
    let document = problem(app.post_lines(lines).await, 422, "too-many-rejected").await;
    assert_eq!(document["done_through_line"], json!(100_000));
    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(33_334), &json!(66_666)));
    assert_eq!(app.count("sports").await, 33_334);
}

#[tokio::test]
async fn batch_continues_if_fewer_lines_are_rejected() {
    let (_redis, app) = app().await;
    let lines: String =
        (0..120_000).map(|n| if n % 3 != 0 { line(&format!("u{n}"), "sports") } else { "x\n".to_owned() }).collect();
    let report = accepted(app.post_lines(lines).await).await;
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(80_000), &json!(40_000)));
}

#[tokio::test]
async fn batch_fails_only_the_lines_of_a_segment_whose_key_is_of_another_type() {
    let (redis, app) = app().await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let segments = ["sports", "news", "broken", "sports", "broken", "news"];
    let lines: String = segments.iter().enumerate().map(|(n, segment)| line(&format!("u{n}"), segment)).collect();
    let document = problem(app.post_lines(lines).await, 503, "store-unavailable").await;

    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(4), &json!(0)));
    let detail = "could not be written: Redis refused this segment's command";
    let errors = json!([
        { "line": 3, "field": "segment", "detail": detail },
        { "line": 5, "field": "segment", "detail": detail },
    ]);
    assert_eq!((&document["errors"], &document["done_through_line"]), (&errors, &json!(2)));
    assert_eq!((app.count("sports").await, app.count("news").await), (2, 2));
}

#[tokio::test]
async fn batch_reports_what_was_written_when_redis_is_lost() {
    let (mut redis, app) = app().await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(b"{}\n").await;
    for n in 0..50 {
        upload.send(line(&format!("u{n}"), "sports").as_bytes()).await;
    }
    eventually("the first lines are written", async || app.count("sports").await == 50).await;
    redis.stop();
    upload.send(line("u50", "sports").as_bytes()).await;
    let (status, document) = upload.answer().await;

    assert_eq!((status, &document["type"]), (503, &json!("urn:segment-estimator:problem:store-unavailable")));
    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(50), &json!(1)), "{document}");
    assert_eq!(document["done_through_line"], 51);
    assert_eq!(document["errors"].as_array().unwrap().len(), 2);

    redis.start_again();
    let rest: String = (50..60).map(|n| line(&format!("u{n}"), "sports")).collect();
    eventually("the other lines are recorded", async || app.post_lines(rest.clone()).await.status() == 200).await;
    assert_eq!(app.count("sports").await, 60);
}

/// Many HTTP libraries do so. The body is larger than the buffers of the connection.
#[tokio::test]
async fn batch_answers_a_sender_that_reads_only_after_sending() {
    let (mut redis, app) = app().await;
    redis.stop();
    let mut upload = Upload::begin(app.address).await;
    let lines: String = (0..1_000).map(|n| line(&format!("u{n}"), "sports")).collect();
    for _ in 0..300 {
        upload.send(lines.as_bytes()).await;
    }
    let (status, document) = upload.end().await;
    assert_eq!(
        (status, &document["accepted"], &document["done_through_line"]),
        (503, &json!(0), &json!(0)),
        "{document}"
    );
}

#[tokio::test]
async fn batch_reports_what_was_written_when_redis_is_out_of_memory() {
    let (redis, app) = app().await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(line("u1", "sports").as_bytes()).await;
    eventually("the first line is written", async || app.count("sports").await == 1).await;
    redis.call::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    upload.send(line("u2", "sports").as_bytes()).await;
    let (status, document) = upload.answer().await;
    assert_eq!(
        (status, &document["accepted"], &document["done_through_line"]),
        (503, &json!(1), &json!(1)),
        "{document}"
    );
}

#[tokio::test]
async fn batch_keeps_the_lines_of_a_sender_that_disconnects() {
    let (_redis, app) = app().await;
    let mut upload = Upload::begin(app.address).await;
    for n in 0..100 {
        upload.send(line(&format!("u{n}"), "sports").as_bytes()).await;
    }
    let half = line("half", "sports");
    upload.send(&half.as_bytes()[..half.len() / 2]).await;
    eventually("the lines are written", async || app.count("sports").await == 100).await;
    drop(upload);
    assert_eq!(accepted(app.post_lines(line("u100", "sports")).await).await, all_accepted(1));
    assert_eq!(app.count("sports").await, 101);
}

#[tokio::test]
async fn batch_ends_at_a_line_that_is_never_completed() {
    let redis = Redis::start();
    let settings = settings([("body_timeout", "1s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(line("u1", "sports").as_bytes()).await;
    upload.send(b"{\"user_id\":").await;
    let (status, document) = upload.answer().await;
    assert_eq!((status, &document["type"]), (408, &json!("urn:segment-estimator:problem:body-timeout")));
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(1), &json!(1)), "{document}");
    let detail = "No line was completed within 1s. Send an empty line from time to time to keep a stream open.";
    assert_eq!(document["detail"], detail);
    assert_eq!(app.count("sports").await, 1);
}

#[tokio::test]
async fn batch_reports_what_was_written_when_the_service_stops() {
    let redis = Redis::start();
    let settings = settings([("drain_timeout", "1s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(line("u1", "sports").as_bytes()).await;
    eventually("the line is written", async || app.count("sports").await == 1).await;
    app.begin_stop();
    let (status, document) = upload.answer().await;
    assert_eq!((status, &document["type"]), (503, &json!("urn:segment-estimator:problem:stopping")));
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(1), &json!(1)), "{document}");
    let detail = "The service is stopping and has aborted the batch. Repeat the lines after done_through_line.";
    assert_eq!(document["detail"], detail);
    app.ended().await.unwrap();
}

/// At most four chunks of 8,192 lines are in flight. The fifth is read and waits.
#[tokio::test]
async fn batch_applies_backpressure_while_redis_is_slow() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("redis_timeout", "30s")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    assert_eq!(accepted(app.post_lines(line("u0", "sports")).await).await, all_accepted(1));
    let members = || redis.call::<u64>(&["ZCARD", "segment:sports"]);

    proxy.hold_replies();
    let mut lines: String = (0..4 * 8_192).map(|n| line(&format!("u{n}"), "sports")).collect();
    lines.push_str(&(0..400_000).map(|n| line(&format!("v{n}"), "sports")).collect::<String>());
    let sending = tokio::spawn(app.lines_request(lines).send());
    eventually("three full chunks are written", async || members() >= 3 * 8_192).await;
    for _ in 0..100 {
        assert!(members() <= 4 * 8_192, "a chunk was written before there was room for it");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    proxy.release_replies();
    assert_eq!(accepted(in_time("the response", sending).await.unwrap().unwrap()).await, all_accepted(432_768));
}

#[tokio::test]
async fn batch_reports_an_early_failed_line_as_done_through_line() {
    let (redis, app) = app().await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let mut lines = format!("{}{}", line("u1", "sports"), line("u2", "broken"));
    lines.extend((0..30_000).map(|n| line(&format!("u{n}"), "sports")));
    lines.push_str("{}\n");
    let document = problem(app.post_lines(lines).await, 503, "store-unavailable").await;
    assert_eq!((&document["accepted"], &document["rejected"]), (&json!(30_001), &json!(1)));
    assert_eq!(document["done_through_line"], 1);
    assert_eq!(app.count("sports").await, 30_000);
}

#[tokio::test]
async fn batch_is_503_for_all_senders_when_redis_hangs() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("redis_timeout", "300ms")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    assert_eq!(accepted(app.post_lines(line("u1", "sports")).await).await, all_accepted(1));
    proxy.hold_replies();
    let posts: Vec<_> = (0..100)
        .map(|_| {
            let request = app.request("POST", "/segments/batch");
            tokio::spawn(request.json(&json!([{ "user_id": "u2", "segment": "sports" }])).send())
        })
        .collect();
    for post in posts {
        let document = problem(in_time("the response", post).await.unwrap().unwrap(), 503, "store-unavailable").await;
        assert_eq!(document["accepted"], 0);
    }
    proxy.release_replies();
    eventually("batches are recorded again", async || app.post_lines(line("u3", "sports")).await.status() == 200).await;
}

#[tokio::test]
async fn batch_is_served_during_the_shutdown_delay() {
    let redis = Redis::start();
    let settings = settings([("shutdown_delay", "1s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    app.begin_stop();
    eventually("readyz is 503", async || app.status_of("/readyz").await == 503).await;
    for n in 0..20 {
        assert_eq!(accepted(app.post_lines(line(&format!("u{n}"), "sports")).await).await, all_accepted(1));
    }
    app.ended().await.unwrap();
}

/// A command blocks Redis's other clients.
#[tokio::test]
async fn batch_sends_at_most_a_thousand_visits_per_command() {
    let (redis, app) = app().await;
    let commands = redis.monitor();
    let lines: String = (0..5_000).map(|n| line(&format!("u{n}"), "sports")).collect();
    assert_eq!(accepted(app.post_lines(lines).await).await, all_accepted(5_000));
    redis.call::<()>(&["PING", "the end"]);
    let zadds =
        commands.take_while(|line| !line.contains("the end")).filter(|line| line.contains("\"segment:sports\""));
    let sizes: Vec<_> = zadds.map(|line| line.matches("\"u").count()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 5_000);
    assert!(sizes.iter().all(|size| *size <= 1_000), "{sizes:?}");
    assert_eq!(app.count("sports").await, 5_000);
}
