//! What the users of a service ask of it.

use std::net::SocketAddr;

use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// A user of the service at an address.
pub struct Client {
    pub address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, http: reqwest::Client::new() }
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

    /// Posts a visit of now, which must be acknowledged.
    pub async fn record(&self, user: &str, segment: &str) {
        let response = self.post_visit(&json!({ "user_id": user, "segment": segment })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    /// Posts a JSON array of visits.
    pub async fn post_array(&self, visits: &Value) -> Response {
        self.request("POST", "/segments/batch").json(visits).send().await.unwrap()
    }

    /// Posts visits, one a line.
    pub async fn post_lines(&self, lines: impl Into<Body>) -> Response {
        self.lines_request(lines).send().await.unwrap()
    }

    /// The request that posts visits, one a line.
    pub fn lines_request(&self, lines: impl Into<Body>) -> RequestBuilder {
        self.request("POST", "/segments/batch").header("content-type", "application/x-ndjson").body(lines)
    }

    /// Asks for a count, which must be answered.
    pub async fn count(&self, segment: &str) -> u64 {
        let response = self.get(&count_path(segment)).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["count"].as_u64().unwrap()
    }

    pub async fn status_of(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }
}

/// The path of a segment's count, every byte of the name percent-encoded.
pub fn count_path(segment: &str) -> String {
    let name: String = segment.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/segments/{name}/count")
}

/// Checks that `response` is a problem document of this status and type, and gives the document.
pub async fn problem(response: Response, status: u16, slug: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers().contains_key("retry-after"), [429, 503].contains(&status));
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["status"], status);
    assert_eq!(document["type"], format!("urn:segment-estimator:problem:{slug}"));
    assert_eq!(document["request_id"], id);
    assert!(!document["title"].as_str().unwrap().is_empty());
    assert!(!document["detail"].as_str().unwrap().is_empty());
    document
}
