//! State that the handlers share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::domain::Timestamp;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::History;
use crate::estimator::overlap::Overlaps;
use crate::http::PublicUrl;
use crate::http::problem::{Problem, ProblemKind};
use crate::store;
use crate::telemetry::Metrics;

/// State that the handlers share.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Records and counts visits.
    pub estimator: Estimator,
    /// Reads the counts of the past.
    pub history: History,
    /// Compares segments.
    pub overlaps: Overlaps,
    /// Clock, synchronized with Redis.
    pub clock: Clock,
    /// Checks API keys and tokens.
    pub authenticator: Arc<Authenticator>,
    /// Whether callers of this listener connect with TLS.
    pub is_tls: bool,
    /// The URL of the service on pages. `None` for that of each request.
    pub public_url: Option<PublicUrl>,
    /// Limits of every request.
    pub limits: RequestLimits,
    /// Sampling ratio for requests without a sampling decision of the caller, 0 to 1. `None` disables tracing.
    pub trace_ratio: Option<f64>,
    /// Permits of requests in flight, as many as [`RequestLimits::requests`].
    pub in_flight: Arc<Semaphore>,
    /// Metrics of the service.
    pub metrics: Arc<Metrics>,
    /// Set when the shutdown begins.
    pub is_stopping: Arc<AtomicBool>,
    /// Cancelled when the shutdown aborts streams that have no end of their own.
    pub end_streams: CancellationToken,
}

impl AppState {
    /// Acquires a permit for a request in flight.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the maximum number of requests is in flight.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| {
            let detail = format!(
                "Nothing was done: the maximum number of requests in flight, {}, is reached. Repeat the request after the seconds in \
                 Retry-After.",
                self.limits.requests
            );
            Problem::new(ProblemKind::Overloaded, detail)
        })
    }

    /// Returns the current time. If the clock was never synchronized with Redis, synchronizes it first: a write with a
    /// wrong time could not be corrected later.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if the synchronization failed.
    pub(super) async fn synced_now(&self) -> Result<Timestamp, store::Error> {
        if !self.clock.is_synced() {
            // Boxed: keeps the synchronization out of every request's future.
            Box::pin(self.estimator.sync(&self.clock)).await?;
        }
        Ok(self.clock.now())
    }

    /// As [`Self::synced_now`], for work that requests share.
    pub(super) async fn shared_now(self: Arc<Self>) -> Result<Timestamp, store::Error> {
        self.synced_now().await
    }
}

/// Limits of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Time for the body to arrive. In a stream of visits, time for each line; in a list of users, for each part.
    pub body: Duration,
    /// Time for the whole request. Streams of visits are exempt, and lists of users after their first line.
    pub request: Duration,
    /// The same for a request with one round trip to Redis. `None` if the time limits of its steps are stricter.
    pub round_trip: Option<Duration>,
    /// Size of the body in bytes. Streams of visits are exempt.
    pub body_bytes: usize,
    /// Number of requests in flight.
    pub requests: usize,
}
