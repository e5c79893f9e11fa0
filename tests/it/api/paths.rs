//! Paths and queries: any percent-encoding, and any bytes.
//!
//! `PROPTEST_CASES=100000 cargo test --test it paths` tries more than the default 256 cases of each property.

use std::cell::RefCell;
use std::net::SocketAddr;

use proptest::prelude::*;
use segment_estimator::domain::SegmentName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::helpers::{Redis, TestApp, in_time, problem};

/// A service and one connection to it, which is replaced when the service closes it.
struct RawClient {
    runtime: Runtime,
    _redis: Redis,
    app: TestApp,
    stream: RefCell<Option<TcpStream>>,
}

impl RawClient {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let redis = Redis::start();
        let app = runtime.block_on(TestApp::spawn(&redis));
        Self { runtime, _redis: redis, app, stream: RefCell::default() }
    }

    /// Sends `path` without any encoding. Returns the status and the body of the response.
    fn get(&self, path: &[u8]) -> (u16, Vec<u8>) {
        let request = [b"GET ", path, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        let exchange = exchange(self.app.address, self.stream.take(), &request);
        let (answer, stream) = self.runtime.block_on(in_time("the response", exchange));
        self.stream.replace(stream);
        answer
    }
}

/// Sends `request`, on a new connection if there is none. Returns the response, and the connection if it stays open.
async fn exchange(
    address: SocketAddr,
    stream: Option<TcpStream>,
    request: &[u8],
) -> ((u16, Vec<u8>), Option<TcpStream>) {
    let mut stream = match stream {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.unwrap(),
    };
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        answer.extend_from_slice(&piece[..read]);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            assert!(read > 0, "no response to {request:?}");
            continue;
        };
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").unwrap().parse().unwrap();
        if answer.len() == end + 4 + length {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let is_open = field("connection:") != Some("close");
            return ((status, answer[end + 4..].to_vec()), is_open.then_some(stream));
        }
    }
}

/// Returns the path of a count with each byte of `name` in the form of `forms`: percent-encoded in upper case, in lower
/// case, or plain if the byte allows it.
fn encoded(name: &str, forms: &[u8]) -> Vec<u8> {
    let bytes = name.bytes().zip(forms.iter().cycle()).flat_map(|(byte, form)| match form {
        0 => format!("%{byte:02X}").into_bytes(),
        1 => format!("%{byte:02x}").into_bytes(),
        _ if byte.is_ascii_graphic() && !b"/?#%\"<>\\^`{|}".contains(&byte) => vec![byte],
        _ => format!("%{byte:02X}").into_bytes(),
    });
    [b"/segments/".as_slice(), &bytes.collect::<Vec<_>>(), b"/count"].concat()
}

/// Generates names of segments.
fn name() -> impl Strategy<Value = String> {
    let characters = prop::collection::vec(prop_oneof![any::<char>(), prop::char::range(' ', '~')], 1..60);
    characters.prop_filter_map("not a segment name", |characters| {
        let text: String = characters.into_iter().collect();
        SegmentName::parse(text.trim().to_owned()).ok().map(|name| name.to_string())
    })
}

#[test]
fn count_decodes_a_name_however_its_bytes_are_encoded() {
    let client = RawClient::new();
    proptest!(|(name in name(), forms in prop::collection::vec(0..4_u8, 1..20))| {
        let (status, body) = client.get(&encoded(&name, &forms));
        prop_assert_eq!(status, 200);
        let document: Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(&document["segment"], &Value::from(name));
        prop_assert_eq!(&document["count"], &Value::from(0));
    });
}

/// Generates bytes that don't end the path in a request line.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let raw = any::<u8>().prop_filter("ends the path", |byte| !b" \r\n".contains(byte)).prop_map(|byte| vec![byte]);
    let encoded = any::<u8>().prop_map(|byte| format!("%{byte:02x}").into_bytes());
    let special =
        prop::sample::select(vec!["%", "%2", "%zz", "%00", "%ff", "%2f", "%2e%2e", "..", "/", "?", "#", "//"]);
    let part = prop_oneof![raw, encoded, special.prop_map(|text| text.as_bytes().to_vec())];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

#[test]
fn count_answers_any_bytes_in_a_path_with_200_or_4xx() {
    let client = RawClient::new();
    let expected = [200, 400, 404, 422];
    proptest!(|(bytes in any_bytes())| {
        let in_a_name = [b"/segments/", bytes.as_slice(), b"/count"].concat();
        let behind_a_slash = [b"/", bytes.as_slice()].concat();
        for path in [&in_a_name, &behind_a_slash, &bytes] {
            // An empty path is an invalid request.
            let (status, _) = client.get(path);
            prop_assert!(expected.contains(&status), "{status} for {}", path.escape_ascii());
        }
    });
}

#[tokio::test]
async fn queries_must_be_utf8() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in
        ["/counts?segment=%ff%fe", "/segments?prefix=%C3", "/overlap?segment=a&segment=%ED%A0%80", "/counts?%ff=1"]
    {
        let document = problem(app.get(path).await, 422, "invalid-request").await;
        assert_eq!(document["detail"], "The query must be UTF-8, percent-encoded.", "{path}");
    }
    assert_eq!(app.status_of("/?contains=%ff").await, 422);
    assert_eq!(app.status_of("/counts?segment=gr%C3%B6%c3%9fe&segment=100%").await, 200);
}
