//! What surrounds a handler: its request is measured, and a panic in it becomes a problem.
//!
//! It wraps the handler itself. A layer around the router would cost each request a boxed future and a clone more, and
//! would have to find out the route again.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use super::AppState;
use super::problem::Problem;
use crate::telemetry::{Metrics, RouteMetrics};

/// A handler with what surrounds it.
#[derive(Clone)]
pub struct Endpoint<H> {
    handler: H,
    metrics: Arc<RouteMetrics>,
}

impl<H> Endpoint<H> {
    /// `handler` as the one of `path` and `method`, which is what `metrics` call it.
    pub fn new(metrics: &Metrics, method: &'static str, path: &'static str, handler: H) -> Self {
        Self { handler, metrics: Arc::new(metrics.http.route(path, method)) }
    }
}

impl<H, T> Handler<T, Arc<AppState>> for Endpoint<H>
where
    H: Handler<T, Arc<AppState>>,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: Arc<AppState>) -> Self::Future {
        let since = Instant::now();
        let Self { handler, metrics } = self;
        Box::pin(async move {
            let all = Arc::clone(&state);
            let answering = AssertUnwindSafe(async move { handler.call(request, state).await }).catch_unwind();
            let response = answering.await.unwrap_or_else(|panic| Problem::of_panic(&*panic).into_response());
            if let Some(problem) = response.extensions().get::<Problem>() {
                all.estimator.metrics().http.problem(problem.slug());
            }
            metrics.answered(response.status().as_u16(), since.elapsed());
            response
        })
    }
}
