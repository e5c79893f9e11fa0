//! What surrounds a handler: its request is admitted, has a deadline and is measured, and a panic in it becomes a problem.
//!
//! It wraps the handler itself. A layer around the router would cost each request a boxed future and a clone more, and
//! would have to find out the route again.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::trace;
use crate::http::AppState;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::telemetry::{Metrics, RouteMetrics};

/// A handler with what surrounds it.
#[derive(Clone)]
pub struct Endpoint<H> {
    handler: H,
    bounds: Bounds,
    route: Arc<Route>,
}

/// What the requests of an endpoint have in common.
struct Route {
    method: &'static str,
    path: &'static str,
    metrics: RouteMetrics,
}

/// How the requests of an endpoint are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// Not at all: whoever probes must be answered when there are too many of the others.
    None,
    /// Together with those of other endpoints, in number.
    Number,
    /// And in the time that each takes.
    NumberAndTime,
    /// The same, of a request that asks Redis once.
    RoundTrip,
}

impl<H> Endpoint<H> {
    /// `handler` as the one of `method` and `path`, whose requests are limited by `bounds` and counted by `metrics`.
    pub fn new(handler: H, method: &'static str, path: &'static str, bounds: Bounds, metrics: &Metrics) -> Self {
        Self { handler, bounds, route: Arc::new(Route { method, path, metrics: metrics.http.route(path, method) }) }
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
        let Self { handler, bounds, route } = self;
        Box::pin(async move {
            let unanswered = Unanswered { route: &route, since };
            let span = trace::span(state.trace_ratio, route.method, route.path, request.headers());
            let answering = answer(handler, bounds, request, &state).instrument(span.clone());
            let mut response = match AssertUnwindSafe(answering).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(problem)) => problem.into_response(),
                Err(panic) => Problem::of_panic(&*panic).into_response(),
            };
            let status = response.status().as_u16();
            let problem = response.extensions_mut().get_mut::<Problem>().map(|problem| {
                problem.set_route(route.path);
                problem.type_slug()
            });
            if let Some(problem) = problem {
                state.estimator.metrics().http.problem(problem);
            }
            trace::answered(&span, status, problem, response.headers_mut());
            std::mem::forget(unanswered);
            route.metrics.answered(status, since.elapsed());
            response
        })
    }
}

/// A request that is under way. Dropped with it when the client doesn't wait for the answer, which counts as an answer, too: a
/// Redis that hangs for longer than callers wait would not be seen in the metrics otherwise.
struct Unanswered<'a> {
    route: &'a Route,
    since: Instant,
}

impl Unanswered<'_> {
    /// The status that such requests are counted with. No client ever gets it; nginx has it in its log.
    const STATUS: u16 = 499;
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.route.metrics.answered(Self::STATUS, self.since.elapsed());
    }
}

/// Has `handler` answer `request` within `bounds`.
async fn answer<H, T>(handler: H, bounds: Bounds, request: Request, state: &Arc<AppState>) -> Result<Response>
where
    H: Handler<T, Arc<AppState>>,
{
    if bounds == Bounds::None {
        return Ok(handler.call(request, Arc::clone(state)).await);
    }
    let _place = Place::take(state)?;
    let answer = handler.call(request, Arc::clone(state));
    match (bounds, state.limits.round_trip) {
        (Bounds::None | Bounds::Number, _) | (Bounds::RoundTrip, None) => Ok(answer.await),
        (Bounds::RoundTrip, Some(limit)) => in_time(limit, answer).await,
        (Bounds::NumberAndTime, _) => in_time(state.limits.request, answer).await,
    }
}

/// Waits for the answer to a request for as long as a request may take.
///
/// # Errors
///
/// A [`Problem`] when it took longer. What it was about to do may have been done.
pub async fn in_time<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, answer).await.map_err(|_| too_late(limit))
}

/// A request took longer than `limit`.
pub fn too_late(limit: Duration) -> Problem {
    let limit = humantime::format_duration(limit);
    let detail = format!(
        "The request was not answered within {limit}, and was given up. What it asked for may have been done; repeat it."
    );
    Problem::new(ProblemKind::RequestTimeout, detail)
}

/// The place of a request among those under way.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(state: &'a AppState) -> Result<Self> {
        let place = Self(&state.under_way);
        let most = state.limits.requests;
        if place.0.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(place);
        }
        let detail = format!(
            "Nothing was done: {most} requests are under way already. Repeat the request after the seconds in Retry-After."
        );
        Err(Problem::new(ProblemKind::Overloaded, detail))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
