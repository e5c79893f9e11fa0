//! HTTP client of the service.

use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;

use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// Client of the service at an address.
pub struct Client {
    pub address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        // The service closes idle connections after 30 s, and a request that it has not read by then fails.
        let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(20)).build().unwrap();
        Self { address, http }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await.unwrap()
    }

    pub async fn post_visit(&self, visit: &Value) -> Response {
        self.request("POST", "/segments").json(visit).send().await.unwrap()
    }

    /// Posts a visit without `seen_at`. Panics with the caller's location unless it is acknowledged.
    #[track_caller]
    pub fn record(&self, user: &str, segment: &str) -> impl Future<Output = ()> {
        let (caller, visit) = (Location::caller(), json!({ "user_id": user, "segment": segment }));
        async move {
            let response = self.post_visit(&visit).await;
            let (status, body) = (response.status(), response.text().await.unwrap());
            assert_eq!(status, StatusCode::NO_CONTENT, "{caller}: {visit}: {body}");
        }
    }

    /// Posts a JSON array of visits.
    pub async fn post_array(&self, visits: &Value) -> Response {
        self.request("POST", "/segments/batch").json(visits).send().await.unwrap()
    }

    /// Posts visits, one per line.
    pub async fn post_lines(&self, lines: impl Into<Body>) -> Response {
        self.lines_request(lines).send().await.unwrap()
    }

    /// Returns the request that posts visits, one per line.
    pub fn lines_request(&self, lines: impl Into<Body>) -> RequestBuilder {
        self.request("POST", "/segments/batch").header("content-type", "application/x-ndjson").body(lines)
    }

    /// Returns the count of a segment. Panics with the caller's location if the response is not 200.
    #[track_caller]
    pub fn count(&self, segment: &str) -> impl Future<Output = u64> {
        let (caller, path) = (Location::caller(), count_path(segment));
        async move {
            let response = self.get(&path).await;
            let (status, body) = (response.status(), response.text().await.unwrap());
            assert_eq!(status, StatusCode::OK, "{caller}: {path}: {body}");
            serde_json::from_str::<Value>(&body).unwrap()["count"].as_u64().unwrap()
        }
    }

    pub async fn status_of(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }
}

/// Returns `response`. Panics with the caller's location and the body, which names the problem, unless the status is a
/// success.
#[track_caller]
pub fn success(response: Response) -> impl Future<Output = Response> {
    let caller = Location::caller();
    async move {
        let status = response.status();
        if !status.is_success() {
            panic!("{caller}: {} {status}: {}", response.url().path().to_owned(), response.text().await.unwrap());
        }
        response
    }
}

/// Returns `name` with every byte percent-encoded.
pub fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Returns the path of a segment's count, with every byte of the name percent-encoded.
pub fn count_path(segment: &str) -> String {
    format!("/segments/{}/count", encoded(segment))
}

/// Asserts that `response` is a problem document of this status and type, and returns the document.
#[track_caller]
pub fn problem(response: Response, status: u16, slug: &str) -> impl Future<Output = Value> {
    let caller = Location::caller();
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers().contains_key("retry-after"), [429, 503].contains(&status));
    async move {
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["status"], status, "{caller}");
        assert_eq!(document["type"], format!("urn:segment-estimator:problem:{slug}"), "{caller}: {document}");
        assert_eq!(document["request_id"], id, "{caller}");
        assert!(!document["title"].as_str().unwrap().is_empty(), "{caller}: {document}");
        assert!(!document["detail"].as_str().unwrap().is_empty(), "{caller}: {document}");
        document
    }
}
