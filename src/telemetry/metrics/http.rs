//! Metrics of requests and connections.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::known;

/// Requests and connections.
pub struct HttpMetrics {
    recorder: Arc<PrometheusRecorder>,
    under_way: Gauge,
    connections: Gauge,
}

impl HttpMetrics {
    pub(super) fn new(recorder: &Arc<PrometheusRecorder>) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            under_way: gauge!("estimator_http_requests_in_flight"),
            connections: gauge!("estimator_http_connections"),
        }
    }

    /// The metrics of the route with this path and method.
    #[must_use]
    pub fn route(&self, path: &'static str, method: &'static str) -> RouteMetrics {
        let name = "estimator_http_request_duration_seconds";
        let duration = || histogram!(name, "route" => path, "method" => method);
        RouteMetrics {
            recorder: Arc::clone(&self.recorder),
            path,
            method,
            duration: with_local_recorder(&*self.recorder, duration),
            by_status: RwLock::default(),
        }
    }

    /// A problem of type `slug` is the answer.
    pub fn problem(&self, slug: &'static str) {
        // Rare, so that it may look its counter up.
        with_local_recorder(&*self.recorder, || counter!("estimator_http_problems_total", "type" => slug).increment(1));
    }

    /// A caller was turned away for a reason of this [kind](crate::auth::AuthError::kind).
    pub fn denied(&self, kind: &'static str) {
        with_local_recorder(&*self.recorder, || {
            counter!("estimator_auth_failures_total", "reason" => kind).increment(1)
        });
    }

    /// So many keys of a `kind`, `api` or `jwt`, are in force now.
    pub fn set_auth_keys(&self, kind: &'static str, keys: usize) {
        with_local_recorder(&*self.recorder, || {
            gauge!("estimator_auth_keys", "kind" => kind).set(known(Some(keys as u64)));
        });
    }

    /// The `files`, `keys` or `certificate`, were just read, with or without success.
    pub fn set_reload_successful(&self, files: &'static str, is_successful: bool) {
        with_local_recorder(&*self.recorder, || {
            gauge!("estimator_reload_successful", "files" => files).set(f64::from(u8::from(is_successful)));
        });
    }

    /// So many requests are under way now.
    pub fn set_under_way(&self, requests: usize) {
        self.under_way.set(known(Some(requests as u64)));
    }

    /// A connection was opened.
    pub fn connected(&self) {
        self.connections.increment(1);
    }

    /// A connection was closed.
    pub fn disconnected(&self) {
        self.connections.decrement(1);
    }
}

/// The requests of one route and method.
pub struct RouteMetrics {
    recorder: Arc<PrometheusRecorder>,
    path: &'static str,
    method: &'static str,
    duration: Histogram,
    /// The few statuses that it has answered with.
    by_status: RwLock<Vec<(u16, Counter)>>,
}

impl RouteMetrics {
    /// A request was answered with `status` after `took`.
    pub fn answered(&self, status: u16, took: Duration) {
        self.duration.record(took);
        let counters = self.by_status.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == status) {
            counter.increment(1);
            return;
        }
        drop(counters);
        // Should another thread do the same at the same time, both have the same counter.
        let (route, method) = (self.path, self.method);
        let name = "estimator_http_requests_total";
        let counter = || counter!(name, "route" => route, "method" => method, "status" => status.to_string());
        let counter = with_local_recorder(&*self.recorder, counter);
        counter.increment(1);
        self.by_status.write().unwrap_or_else(PoisonError::into_inner).push((status, counter));
    }
}
