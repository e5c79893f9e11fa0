//! The HTTP layer: routes, what surrounds them, and the server. It knows the [`Estimator`] and nothing of Redis.
//!
//! `segments.rs`, `batch.rs`, `health.rs`, `openapi.rs` and `docs.rs` have the handlers, `body.rs` the taking in of bodies,
//! `problem.rs` the errors, `answer.rs` what surrounds the router, `server.rs` the connections.

mod answer;
mod batch;
mod body;
mod docs;
mod health;
pub mod openapi;
mod problem;
mod segments;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::problem::{Problem, ProblemKind};
use crate::estimator::Estimator;

/// What the handlers share.
#[derive(Debug)]
pub struct AppState {
    /// The service itself.
    pub estimator: Estimator,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Cancelled when the service starts to stop.
    pub stopping: CancellationToken,
    /// Cancelled when streams that have no end of their own must come to one.
    pub ending: CancellationToken,
}

/// The service's routes. [`server::serve`] makes problems of their errors.
pub fn router(state: Arc<AppState>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router.fallback(async || not_found()).method_not_allowed_fallback(async || method_not_allowed()).with_state(state)
}

/// Every path with its methods. A test holds [`openapi`]'s document to it.
fn routes() -> [(&'static str, MethodRouter<Arc<AppState>>); 9] {
    [
        ("/segments", post(segments::record)),
        ("/segments/batch", post(batch::record)),
        ("/segments/{name}/count", get(segments::count)),
        ("/healthz", get(health::live)),
        ("/readyz", get(health::ready)),
        ("/openapi.json", openapi::route()),
        ("/docs", get(docs::page)),
        ("/docs/", get(docs::page_with_slash)),
        ("/docs/{file}", get(docs::file)),
    ]
}

fn not_found() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "No route has this path. Paths have no slash at the end, and a slash in a segment's name is written %2F.",
    )
}

fn method_not_allowed() -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, "The Allow header names the methods that this path has.")
}

/// A 200 with `value` as JSON. Every answer is true of one moment only, so none may be cached.
fn json(value: &impl Serialize) -> Response {
    let body = json_line(value);
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from(body)).into_response()
}

/// `value` as JSON with a line feed at the end, so that a shell's prompt doesn't stand behind it.
fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("strings and numbers serialize");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_router_has_the_paths_of_the_document() {
        let document: serde_json::Value = serde_json::from_str(&openapi::to_json()).unwrap();
        let mut paths: Vec<_> = routes().into_iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        assert_eq!(paths, document["paths"].as_object().unwrap().keys().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let routes = Router::new()
            .route("/panic", get(async || -> StatusCode { panic!("for the test") }))
            .route("/bare", get(async || (StatusCode::BAD_GATEWAY, "not a problem document")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = server::Limits { header: Duration::from_secs(30), drain: Duration::from_secs(30) };
        tokio::spawn(server::serve(listener, routes, limits, CancellationToken::new()));

        for path in ["panic", "bare", "panic"] {
            let response = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let document: serde_json::Value = response.json().await.unwrap();
            assert_eq!(document["type"], "urn:segment-estimator:problem:internal-error");
            assert!(!document.to_string().contains("for the test"), "{document}");
        }
    }
}
