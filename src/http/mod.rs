//! The HTTP layer: routes, what surrounds them, and the server. It knows the [`Estimator`] and nothing of Redis.
//!
//! `routes.rs` says which handler has which path; `segments.rs`, `history.rs`, `overlap.rs`, `batch.rs`, `health.rs`, `metrics.rs`, `openapi.rs`,
//! `docs.rs` and `pages/` have the handlers. `host.rs` says which hosts are answered for, `access.rs` who may call them, `endpoint.rs`
//! surrounds each, `answer.rs` all of them. `query.rs` takes parameters in, `prefer.rs` preferences, `body.rs` bodies, `problem.rs` has
//! the errors, `server.rs`, `stream.rs`, `tls.rs` and `http2.rs` the connections.

mod api;
pub mod docs;
mod extract;
mod middleware;
mod pages;
mod problem;
mod routes;
pub mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::middleware::cors::Origins;
pub use self::routes::Site;
pub use self::server::{AllowedHosts, Tls, TlsError, TlsFiles};
use crate::auth::Authenticator;
use crate::domain::Timestamp;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::History;
use crate::estimator::overlap::Overlaps;
use crate::store;

/// What the handlers share.
#[derive(Debug)]
pub struct AppState {
    /// The service itself.
    pub estimator: Estimator,
    /// The sizes of segments over time.
    pub history: History,
    /// What segments have in common.
    pub overlaps: Overlaps,
    /// The time it goes by.
    pub clock: Clock,
    /// Who may do what.
    pub gate: Arc<Authenticator>,
    /// Whether callers speak TLS to it.
    pub is_tls: bool,
    /// What a request may take.
    pub limits: RequestLimits,
    /// The part of the requests that is traced where their callers don't decide it, 0 to 1; nothing is without it.
    pub trace_ratio: Option<f64>,
    /// Requests under way, of those that are limited in number.
    pub under_way: AtomicUsize,
    /// Set when the service starts to stop.
    pub is_stopping: Arc<AtomicBool>,
    /// Cancelled when streams that have no end of their own must come to one.
    pub ending: CancellationToken,
}

impl AppState {
    /// The time now. No request is served by a clock that was never compared with Redis's, as when Redis was away at the start:
    /// what it might write would be wrong for good. So that is made up for first.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis can't serve, and never did.
    async fn now(&self) -> Result<Timestamp, store::Error> {
        if !self.clock.is_synced() {
            self.estimator.sync(&self.clock).await?;
        }
        Ok(self.clock.now())
    }
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// For the body to arrive; of a stream of visits, each line.
    pub body: Duration,
    /// For the whole request, a stream of visits excepted.
    pub request: Duration,
    /// The same for a request that asks Redis once; `None` when its parts can't take so long.
    pub round_trip: Option<Duration>,
    /// The longest body, in bytes; a stream of visits has no longest.
    pub body_bytes: usize,
    /// Requests that may be under way at a time.
    pub requests: usize,
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
