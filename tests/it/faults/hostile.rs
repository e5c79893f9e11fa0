//! Hostile requests: each is rejected in bounded memory, and the service still serves.

use std::net::SocketAddr;
use std::panic::Location;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{quick_or_soak, recover, serve, side_by_side};
use crate::helpers::{Redis, Service, Upload, in_time, peak_memory};

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;
/// Limit on the growth of the service's memory in KiB.
const MAX_GROWTH_KIB: u64 = 48 * 1_024;

/// Sends raw bytes, and returns all responses until the connection ends.
async fn send_raw(address: SocketAddr, pieces: impl IntoIterator<Item = Vec<u8>>) -> String {
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let pieces: Vec<_> = pieces.into_iter().collect();
    let sending = tokio::spawn(async move {
        for piece in pieces {
            // The service closes a connection that it rejects.
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        to
    });
    let mut answer = Vec::new();
    let _ = in_time("the connection ends", from.read_to_end(&mut answer)).await;
    drop(sending.await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.").skip(1);
    // Bodies may contain `HTTP/1.`, too.
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}

/// Returns `head` with the headers that every request needs.
fn request(head: &str) -> Vec<u8> {
    format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

fn post(path: &str, content_type: &str, length: usize) -> Vec<u8> {
    request(&format!("POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}"))
}

/// Returns `length` times `byte` in pieces.
fn repeated(length: usize, byte: u8) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_n(vec![byte; 64 * KIB], length / (64 * KIB))
}

/// Hostile request and the statuses of its responses.
struct Attack {
    what: &'static str,
    pieces: Vec<Vec<u8>>,
    statuses: &'static [u16],
}

fn attacks() -> Vec<Attack> {
    let gib = 1_024 * MIB;
    let attack = |what, pieces: Vec<Vec<u8>>, statuses| Attack { what, pieces, statuses };
    let with_body = |head: Vec<u8>, body: Vec<u8>| [head, body].concat();
    let deep = "[".repeat(1_000_000);
    let deep_visit = format!(r#"{{"user_id":"u","segment":"s","x":{}"#, "[".repeat(15 * KIB));
    let visit = r#"{"user_id":"u1","segment":"sports"}"#;
    let visit = |rest: &str| {
        let head = format!(
            "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}",
            visit.len()
        );
        format!("{head}\r\n\r\n{visit}{rest}").into_bytes()
    };
    vec![
        attack("a body of 1 GiB", vec![post("/segments", "application/json", gib)], &[413]),
        attack("an array of 1 GiB", vec![post("/segments/batch", "application/json", gib)], &[413]),
        attack(
            "JSON that is a million levels deep",
            vec![with_body(post("/segments/batch", "application/json", deep.len()), deep.into_bytes())],
            &[400],
        ),
        attack(
            "a visit with a field that is deep",
            vec![with_body(post("/segments", "application/json", deep_visit.len()), deep_visit.into_bytes())],
            &[400],
        ),
        attack("a head of 1 MiB", vec![request(&format!("GET /healthz HTTP/1.1\r\nx: {}", "x".repeat(MIB)))], &[431]),
        attack(
            "a head of 100,000 lines",
            vec![request(&format!("GET /healthz HTTP/1.1{}", "\r\nx: y".repeat(100_000)))],
            &[431],
        ),
        attack("a path of 1 MiB", vec![request(&format!("GET /segments/{}/count HTTP/1.1", "x".repeat(MIB)))], &[431]),
        attack("garbage after a request", vec![visit("\0\u{1}garbage\r\n\r\n")], &[204, 400]),
        attack("nothing but garbage", vec![b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()], &[400]),
        attack(
            "two lengths",
            vec![request("POST /segments HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6")],
            &[400],
        ),
        attack("a length that is none", vec![request("POST /segments HTTP/1.1\r\ncontent-length: -1")], &[400]),
        attack(
            "chunks that are none",
            vec![with_body(
                request(
                    "POST /segments/batch HTTP/1.1\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked",
                ),
                b"zz\r\n".to_vec(),
            )],
            &[400],
        ),
        attack("no host", vec![b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec()], &[400]),
        // HTTP/1.0 is old and valid.
        attack("HTTP/1.0", vec![b"GET /healthz HTTP/1.0\r\n\r\n".to_vec()], &[200]),
        attack("HTTP/3.0", vec![b"GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n".to_vec()], &[400]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_rejects_hostile_requests_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &[]);
    service.record("u1", "sports").await;
    let before = peak_memory(service.pid());
    for Attack { what, pieces, statuses: expected } in attacks() {
        let answer = send_raw(service.address, pieces).await;
        assert_eq!(statuses(&answer), expected, "{what}: {answer:.300}");
        assert_eq!(service.status_of("/healthz").await, 200, "after {what}");
    }
    assert_unharmed(service, before, "hostile requests").await;
}

/// Streams have no limit on the body. Their memory is bounded nevertheless.
#[rstest]
#[case::line_without_end(b'x')]
#[case::empty_lines(b'\n')]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_reads_a_stream_of_any_length_in_little_memory(#[case] byte: u8) {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &["--body-timeout", "60s"]);
    service.record("u1", "sports").await;
    let before = peak_memory(service.pid());
    let length = quick_or_soak(64 * MIB, 1_024 * MIB);
    let mut upload = Upload::begin(service.address).await;
    for piece in repeated(length, byte) {
        upload.send(&piece).await;
    }
    let (status, report) = upload.end().await;
    assert_eq!(status, if byte == b'x' { 422 } else { 200 }, "{report}");
    assert_unharmed(service, before, &format!("a stream of {length} bytes")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_rejects_a_decompression_bomb_in_little_memory() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &["--body-timeout", "60s"]);
    service.record("u1", "sports").await;
    let before = peak_memory(service.pid());
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in repeated(quick_or_soak(64 * MIB, 1_024 * MIB), b'x') {
        std::io::Write::write_all(&mut packed, &piece).unwrap();
    }
    let lines = service.lines_request(packed.finish().unwrap()).header("content-encoding", "gzip");
    assert_eq!(lines.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_unharmed(service, before, "a bomb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_records_ten_thousand_segments_in_little_memory() {
    const SEGMENTS: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &["--max-segments", "20000"]);
    service.record("u1", "sports").await;
    let before = peak_memory(service.pid());
    let name = |number| format!("{number:0>128}");
    let visit = |number| json!({ "user_id": "u1", "segment": name(number) });
    let lines: String = (0..SEGMENTS).map(|number| visit(number).to_string() + "\n").collect();
    let report: Value = service.post_lines(lines).await.json().await.unwrap();
    assert_eq!(report["accepted"], SEGMENTS, "{report}");
    assert_eq!(redis.call::<usize>(&["ZCARD", "segments"]), SEGMENTS + 1);
    assert_eq!(service.count(&name(SEGMENTS - 1)).await, 1);
    assert_unharmed(service, before, "ten thousand segments").await;
}

/// Asserts that the memory grew little since `before`, that the service still serves, and that nothing panicked in it.
#[track_caller]
fn assert_unharmed(service: Service, before: u64, what: &str) -> impl Future<Output = ()> {
    let (caller, growth) = (Location::caller(), peak_memory(service.pid()).saturating_sub(before));
    println!("{what}: memory grew by {growth} KiB");
    assert!(growth < MAX_GROWTH_KIB, "memory grew by {growth} KiB");
    async move {
        recover(caller, &service, what).await;
        let log = service.terminate_for_log();
        assert!(!log.iter().any(|line| line.contains("panic")), "{caller}: {log:#?}");
    }
}
