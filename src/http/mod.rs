//! The HTTP layer: routes, what surrounds them, and the server. It knows the [`Estimator`] and nothing of Redis.
//!
//! `segments.rs`, `batch.rs` and `health.rs` have the handlers, `body.rs` the taking in of bodies, `problem.rs` the errors,
//! `answer.rs` what surrounds the router, `server.rs` the connections.

mod access;
mod answer;
mod batch;
mod body;
mod cors;
mod endpoint;
mod health;
mod metrics;
mod problem;
mod segments;
pub mod server;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::access::{May, Read};
pub use self::cors::Origins;
use self::endpoint::{Bounds, Endpoint};
use self::problem::{Problem, ProblemKind};
pub use self::tls::{Tls, TlsError, TlsFiles};
use crate::auth::Gate;
use crate::estimator::Estimator;

/// What the handlers share.
#[derive(Debug)]
pub struct AppState {
    /// The service itself.
    pub estimator: Estimator,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// What a request may take.
    pub limits: RequestLimits,
    /// Requests under way, of those that are limited in number.
    pub under_way: AtomicUsize,
    /// Cancelled when the service starts to stop.
    pub stopping: CancellationToken,
    /// Cancelled when streams that have no end of their own must come to one.
    pub ending: CancellationToken,
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// For the body to arrive; of a stream of visits, each line.
    pub body: Duration,
    /// For the whole request, a stream of visits excepted.
    pub request: Duration,
    /// The longest body, in bytes; a stream of visits has no longest.
    pub body_bytes: usize,
    /// Requests that may be under way at a time.
    pub requests: usize,
}

/// The routes of the API and, unless they are served elsewhere, those of [`admin_router`]. [`server::Server`] makes problems
/// of their errors.
pub fn router(state: Arc<AppState>, origins: Option<&Origins>, has_admin_router: bool) -> Router {
    let routes = Routes::new(state)
        .post("/segments", Bounds::NumberAndTime, segments::record)
        .post("/segments/batch", Bounds::Number, batch::record)
        .get("/segments/{name}/count", Bounds::NumberAndTime, segments::count);
    let routes = if has_admin_router {
        routes
    } else {
        // Here, metrics are one of the things that a token is needed for; where they have a listener of their own, whoever
        // reaches that may have them.
        let metrics = async |_: May<Read>, state| metrics::metrics(state).await;
        routes.with_probes().get("/metrics", Bounds::None, metrics)
    };
    match origins {
        None => routes.into_router(),
        Some(origins) => routes.into_router().layer(cors::layer(origins)),
    }
}

/// Probes and metrics, for a listener of their own.
pub fn admin_router(state: Arc<AppState>) -> Router {
    Routes::new(state).with_probes().get("/metrics", Bounds::None, metrics::metrics).into_router()
}

/// Routes whose handlers are [`Endpoint`]s.
struct Routes {
    router: Router<Arc<AppState>>,
    state: Arc<AppState>,
}

impl Routes {
    fn new(state: Arc<AppState>) -> Self {
        Self { router: Router::new(), state }
    }

    fn with_probes(self) -> Self {
        self.get("/healthz", Bounds::None, health::live).get("/readyz", Bounds::None, health::ready)
    }

    fn endpoint<H>(&self, method: &'static str, path: &'static str, bounds: Bounds, handler: H) -> Endpoint<H> {
        Endpoint::new(handler, bounds, self.state.estimator.metrics().http.route(path, method))
    }

    fn get<T: 'static>(mut self, path: &'static str, bounds: Bounds, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let endpoint = self.endpoint("GET", path, bounds, handler);
        self.router = self.router.route(path, get(endpoint));
        self
    }

    fn post<T: 'static>(mut self, path: &'static str, bounds: Bounds, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let endpoint = self.endpoint("POST", path, bounds, handler);
        self.router = self.router.route(path, post(endpoint));
        self
    }

    fn into_router(self) -> Router {
        // What a caller makes up, be it a path or a method, is no label.
        let not_found = self.endpoint("any", "unmatched", Bounds::None, not_found);
        let method_not_allowed = self.endpoint("any", "unmatched", Bounds::None, method_not_allowed);
        self.router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(self.state)
    }
}

async fn not_found() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "No route has this path. Paths have no slash at the end, and a slash in a segment's name is written %2F.",
    )
}

async fn method_not_allowed() -> Problem {
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

    use super::server::{Limits, Server};
    use super::*;
    use crate::auth::AuthConfig;
    use crate::store::{self, Connection, RedisUrl, Store};
    use crate::time::Window;

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let routes = Routes::new(Arc::new(state()))
            .get("/panic", Bounds::None, async || -> StatusCode { panic!("for the test") })
            .get("/bare", Bounds::None, async || (StatusCode::BAD_GATEWAY, "not a problem document"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server().serve(listener, routes.into_router(), CancellationToken::new()));

        for path in ["panic", "bare", "panic"] {
            let response = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let document: serde_json::Value = response.json().await.unwrap();
            assert_eq!(document["type"], "urn:segment-estimator:problem:internal-error");
            assert!(!document.to_string().contains("for the test"), "{document}");
        }
    }

    fn server() -> Server {
        let minute = Duration::from_secs(60);
        Server {
            limits: Limits { header: minute, drain: minute, head_bytes: 8_192, connections: 10 },
            metrics: Arc::default(),
            tls: None,
        }
    }

    /// The state of a service whose Redis is nowhere.
    fn state() -> AppState {
        let second = Duration::from_secs(1);
        let limits = store::Limits { connect: second, answer: second, waiting: 1 };
        let url = RedisUrl::unix("/nowhere/redis.sock".into());
        let store = Store::new(Connection::new(url, limits, Arc::default()).unwrap());
        AppState {
            estimator: Estimator::new(store, Window::parse("14d").unwrap()),
            gate: Arc::new(Gate::load(AuthConfig::default()).unwrap()),
            limits: RequestLimits { body: second, request: second, body_bytes: 1_000, requests: 1 },
            under_way: AtomicUsize::new(0),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
        }
    }
}
