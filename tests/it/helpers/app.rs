//! The service in this process, and what is asked of it.

use std::net::SocketAddr;

use reqwest::{RequestBuilder, Response, StatusCode};
use segment_estimator::app::{App, AppError};
use segment_estimator::settings::{Layer, Settings, Source};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::in_time;
use super::redis::Redis;

/// The service in this process, on a port of its own.
pub struct TestApp {
    pub address: SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl TestApp {
    /// A service on `redis` with the default settings.
    pub async fn spawn(redis: &Redis) -> Self {
        Self::spawn_with(redis, Layer::default()).await
    }

    /// A service on `redis` with some settings changed.
    pub async fn spawn_with(redis: &Redis, changes: Layer) -> Self {
        Self::spawn_on(redis.url(), changes).await
    }

    /// A service on the Redis that is, or will be, at `url`.
    pub async fn spawn_on(url: String, changes: Layer) -> Self {
        let test = Layer { listen: Some("127.0.0.1:0".to_owned()), redis_url: Some(url), ..Layer::default() };
        let layers = [(Source::Defaults, Layer::defaults()), (Source::Environment, test), (Source::Flags, changes)];
        let app = App::build(&Settings::from_layers(&layers).unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        Self {
            address: app.local_addr(),
            client: reqwest::Client::new(),
            stop: stop.clone(),
            running: tokio::spawn(async move { app.run_until(stop.cancelled()).await }),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
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

    /// Asks for a count, which must be answered.
    pub async fn count(&self, segment: &str) -> u64 {
        let response = self.get(&count_path(segment)).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["count"].as_u64().unwrap()
    }

    pub async fn status_of(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }

    /// Asks the service to stop, as a signal would.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the service's end.
    pub async fn ended(self) -> Result<(), AppError> {
        in_time("the service's end", self.running).await.unwrap()
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
    assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["status"], status);
    assert_eq!(document["type"], format!("urn:segment-estimator:problem:{slug}"));
    assert_eq!(document["request_id"], id);
    assert!(!document["title"].as_str().unwrap().is_empty());
    assert!(!document["detail"].as_str().unwrap().is_empty());
    document
}
