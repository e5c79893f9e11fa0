//! Middleware around each handler: limits, metrics, traces, and panics as problems.
//!
//! It wraps the handler instead of the router. A layer of the router would cost each request a boxed future and a
//! clone, and would have to look up the matched route.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Timeout;
use tracing::Span;

use super::trace::{self, TracedRequest};
use crate::auth::KeyUsage;
use crate::http::caller;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::state::AppState;
use crate::telemetry::{Metrics, RouteMetrics};

/// Status in the metrics for a request whose client disconnected before the response, as in nginx's log. Without it, a
/// Redis that hangs for longer than clients wait would be invisible.
const DISCONNECTED: u16 = 499;

/// Path in the metrics for requests that match no route.
const UNMATCHED: &str = "unmatched";

/// Limits on the requests of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLimits {
    /// No limits: probes must succeed under overload, and fallbacks only refuse.
    Unlimited,
    /// A limit on the time of a request. For deletions, which acquire a permit within their entry of the log.
    Time,
    /// A limit on requests in flight. For streams, and for handlers that limit their own time.
    Concurrency,
    /// A limit on requests in flight, and one on the time of a request.
    ConcurrencyAndTime,
    /// A limit on requests in flight, and one on the time of a single round trip to Redis.
    RoundTrip,
}

impl RouteLimits {
    /// Acquires a permit for a request in flight, if the route needs one.
    fn admit(self, state: &AppState) -> Result<Option<OwnedSemaphorePermit>> {
        match self {
            Self::Unlimited | Self::Time => Ok(None),
            Self::Concurrency | Self::ConcurrencyAndTime | Self::RoundTrip => state.admit().map(Some),
        }
    }

    fn timeout(self, state: &AppState) -> Option<Duration> {
        match self {
            Self::Unlimited | Self::Concurrency => None,
            Self::Time | Self::ConcurrencyAndTime => Some(state.limits.request),
            Self::RoundTrip => state.limits.round_trip,
        }
    }
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
    H: Handler<T, Arc<AppState>, Future: Unpin>,
    T: 'static,
{
    type Future = ResponseFuture<H::Future>;

    fn call(self, request: Request, state: Arc<AppState>) -> Self::Future {
        let started = Instant::now();
        let Self { handler, limits, route } = self;
        let span = route.span(&request, &state);
        let (call, permit) = match limits.admit(&state) {
            Ok(permit) => (Call::new(handler.call(request, Arc::clone(&state)), limits.timeout(&state)), permit),
            Err(problem) => (Call::Refused(problem), None),
        };
        ResponseFuture { call, permit, span, started, route, state, caller: None }
    }
}

/// The response of an [`Endpoint`].
///
/// The future is written by hand because the handler's future has a heap allocation already. An async block would need
/// another one, and would copy the request into it.
pub struct ResponseFuture<F> {
    call: Call<F>,
    permit: Option<OwnedSemaphorePermit>,
    span: Span,
    started: Instant,
    route: Arc<MeasuredRoute>,
    state: Arc<AppState>,
    /// The counters of the caller's key, once the handler has authorized it.
    caller: Option<Arc<KeyUsage>>,
}

/// The call of a handler.
enum Call<F> {
    /// Answered without the handler.
    Refused(Problem),
    Running(F),
    /// With a time limit.
    Timed(Pin<Box<Timeout<F>>>, Duration),
    Ended,
}

impl<F: Future<Output = Response> + Unpin> Call<F> {
    fn new(answer: F, timeout: Option<Duration>) -> Self {
        match timeout {
            None => Self::Running(answer),
            Some(timeout) => Self::Timed(Box::pin(tokio::time::timeout(timeout, answer)), timeout),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response>> {
        match self {
            Self::Running(answer) => Pin::new(answer).poll(context).map(Ok),
            Self::Timed(answer, timeout) => answer.as_mut().poll(context).map_err(|_| timed_out(*timeout)),
            Self::Refused(_) | Self::Ended => match std::mem::replace(self, Self::Ended) {
                Self::Refused(problem) => Poll::Ready(Err(problem)),
                _ => unreachable!("no future is polled after its end"),
            },
        }
    }
}

impl<F: Future<Output = Response> + Unpin> Future for ResponseFuture<F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let Self { call, permit, span, started, route, state, caller } = self.get_mut();
        // A key that was set outside of a request is no caller's.
        drop(caller::take());
        let polled = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| call.poll(context))));
        if let Some(usage) = caller::take() {
            *caller = Some(usage);
        }
        let response = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Ok(Poll::Ready(Err(problem))) => problem.into_response(),
            Err(panic) => Problem::of_panic(&*panic).into_response(),
        };
        (*call, *permit) = (Call::Ended, None);
        Poll::Ready(route.finish(response, span, *started, state, caller.as_deref()))
    }
}

impl<F> Drop for ResponseFuture<F> {
    fn drop(&mut self) {
        if !matches!(self.call, Call::Ended) {
            trace::abandon(&self.span);
            self.route.metrics.answered(DISCONNECTED, self.started.elapsed());
        }
    }
}

/// Route with its metrics.
pub struct MeasuredRoute {
    path: &'static str,
    metrics: RouteMetrics,
}

impl MeasuredRoute {
    pub fn new(method: &'static str, path: &'static str, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self { path, metrics: metrics.http.route(path, method) })
    }

    /// Returns the route of requests that match no other. Paths and methods that callers make up must not become
    /// labels.
    pub fn unmatched(metrics: &Metrics) -> Arc<Self> {
        Self::new("any", UNMATCHED, metrics)
    }

    /// Answers with `problem` without calling a handler.
    pub fn refuse<B>(&self, problem: Problem, request: &Request<B>, state: &AppState) -> Response {
        let started = Instant::now();
        let span = self.span(request, state);
        self.finish(problem.into_response(), &span, started, state, None)
    }

    fn span<B>(&self, request: &Request<B>, state: &AppState) -> Span {
        let route = (self.path != UNMATCHED).then_some(self.path);
        trace::span(state.trace_ratio, TracedRequest { request, route, is_tls: state.is_tls })
    }

    /// Records `response` in metrics and the trace. `caller` has the counters of the caller's key.
    fn finish(
        &self,
        mut response: Response,
        span: &Span,
        started: Instant,
        state: &AppState,
        caller: Option<&KeyUsage>,
    ) -> Response {
        let status = response.status().as_u16();
        let problem = response.extensions_mut().get_mut::<Problem>().map(|problem| {
            problem.set_route(self.path);
            problem.type_slug()
        });
        if let Some(problem) = problem {
            state.metrics.http.problem(problem);
            if let Some(caller) = caller {
                caller.problem(problem);
            }
        }
        trace::finish(span, status, problem, response.headers_mut());
        self.metrics.answered(status, started.elapsed());
        response
    }
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
