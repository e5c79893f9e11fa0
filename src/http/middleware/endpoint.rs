//! Middleware around each handler: limits, metrics, traces, and panics as problems.
//!
//! It wraps the handler instead of the router. A layer of the router would cost each request a boxed future and a
//! clone, and would have to look up the matched route.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use scopeguard::ScopeGuard;
use tokio::sync::SemaphorePermit;
use tracing::{Instrument as _, Span};

use super::trace;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::state::AppState;
use crate::telemetry::{Metrics, RouteMetrics};

/// RouteLimits of the requests of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLimits {
    /// No limits: probes must succeed under overload.
    Unlimited,
    /// Counts towards the limit of requests in flight.
    Concurrency,
    /// Also has a time limit.
    ConcurrencyAndTime,
    /// Also has a time limit, the one for a single round trip to Redis.
    RoundTrip,
}

/// Handler with its middleware.
#[derive(Clone)]
pub struct Endpoint<H> {
    handler: H,
    limits: RouteLimits,
    route: Arc<MeasuredRoute>,
}

impl<H> Endpoint<H> {
    pub const fn new(handler: H, limits: RouteLimits, route: Arc<MeasuredRoute>) -> Self {
        Self { handler, limits, route }
    }
}

impl<H, T> Handler<T, Arc<AppState>> for Endpoint<H>
where
    H: Handler<T, Arc<AppState>>,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: Arc<AppState>) -> Self::Future {
        let started = Instant::now();
        let Self { handler, limits, route } = self;
        Box::pin(async move {
            let guard = scopeguard::guard((), |()| route.metrics.answered(DISCONNECTED, started.elapsed()));
            let span = route.span(request.headers(), &state);
            let limited = call_within_limits(handler, limits, request, &state).instrument(span.clone());
            let response = match AssertUnwindSafe(limited).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(problem)) => problem.into_response(),
                Err(panic) => Problem::of_panic(&*panic).into_response(),
            };
            ScopeGuard::into_inner(guard);
            route.finish(response, &span, started, &state)
        })
    }
}

/// Status in the metrics for a request whose client disconnected before the response, as in nginx's log. Without it, a
/// Redis that hangs for longer than clients wait would be invisible.
const DISCONNECTED: u16 = 499;

/// Route with its metrics.
pub struct MeasuredRoute {
    method: &'static str,
    path: &'static str,
    metrics: RouteMetrics,
}

impl MeasuredRoute {
    pub fn new(method: &'static str, path: &'static str, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self { method, path, metrics: metrics.http.route(path, method) })
    }

    /// Returns the route of requests that match no other. Paths and methods that callers make up must not become
    /// labels.
    pub fn unmatched(metrics: &Metrics) -> Arc<Self> {
        Self::new("any", "unmatched", metrics)
    }

    /// Answers with `problem` without calling a handler.
    pub fn refuse(&self, problem: Problem, headers: &HeaderMap, state: &AppState) -> Response {
        let started = Instant::now();
        let span = self.span(headers, state);
        self.finish(problem.into_response(), &span, started, state)
    }

    fn span(&self, headers: &HeaderMap, state: &AppState) -> Span {
        trace::span(state.trace_ratio, self.method, self.path, headers)
    }

    /// Records `response` in metrics and the trace.
    fn finish(&self, mut response: Response, span: &Span, started: Instant, state: &AppState) -> Response {
        let status = response.status().as_u16();
        let problem = response.extensions_mut().get_mut::<Problem>().map(|problem| {
            problem.set_route(self.path);
            problem.type_slug()
        });
        if let Some(problem) = problem {
            state.metrics.http.problem(problem);
        }
        trace::finish(span, status, problem, response.headers_mut());
        self.metrics.answered(status, started.elapsed());
        response
    }
}

async fn call_within_limits<H, T>(
    handler: H,
    limits: RouteLimits,
    request: Request,
    state: &Arc<AppState>,
) -> Result<Response>
where
    H: Handler<T, Arc<AppState>>,
{
    if limits == RouteLimits::Unlimited {
        return Ok(handler.call(request, Arc::clone(state)).await);
    }
    let _permit = acquire_permit(state)?;
    let answer = handler.call(request, Arc::clone(state));
    match (limits, state.limits.round_trip) {
        (RouteLimits::Unlimited | RouteLimits::Concurrency, _) | (RouteLimits::RoundTrip, None) => Ok(answer.await),
        (RouteLimits::RoundTrip, Some(timeout)) => with_timeout(timeout, answer).await,
        (RouteLimits::ConcurrencyAndTime, _) => with_timeout(state.limits.request, answer).await,
    }
}

/// Acquires a permit for a request in flight.
fn acquire_permit(state: &AppState) -> Result<SemaphorePermit<'_>> {
    state.in_flight.try_acquire().map_err(|_| {
        let detail = format!(
            "Nothing was done: the maximum number of requests in flight, {}, is reached. Repeat the request after the \
             seconds in Retry-After.",
            state.limits.requests
        );
        Problem::new(ProblemKind::Overloaded, detail)
    })
}

/// Awaits `answer` for at most `timeout`.
///
/// # Errors
///
/// A [`Problem`] if it took longer.
pub async fn with_timeout<T>(timeout: Duration, answer: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(timeout, answer).await.map_err(|_| timed_out(timeout))
}

/// Returns the problem of a request that exceeded `timeout`.
pub fn timed_out(timeout: Duration) -> Problem {
    let timeout = humantime::format_duration(timeout);
    let detail =
        format!("The request was aborted after {timeout}. A write may or may not have been done; repeat the request.");
    Problem::new(ProblemKind::RequestTimeout, detail)
}
