//! Metrics of requests and connections.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::Family;
use super::value::gauge_value;

/// Requests and connections.
pub struct HttpMetrics {
    recorder: Arc<PrometheusRecorder>,
    in_flight: Gauge,
    connections: Gauge,
    member_lists_aborted: Family,
}

impl HttpMetrics {
    pub(super) fn new(recorder: &Arc<PrometheusRecorder>) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            in_flight: gauge!("estimator_http_requests_in_flight"),
            connections: gauge!("estimator_http_connections"),
            member_lists_aborted: Family::new(
                "estimator_member_lists_aborted_total",
                "reason",
                &["client", "redis", "sample", "slow-client", "stopping", "token"],
            ),
        }
    }

    /// Returns the metrics of a route.
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

    /// Counts an error response of type `slug`.
    pub fn problem(&self, slug: &'static str) {
        // Errors are rare enough to look up the counter.
        with_local_recorder(&*self.recorder, || counter!("estimator_http_problems_total", "type" => slug).increment(1));
    }

    /// Counts a list of users that broke off, by reason.
    pub fn member_list_aborted(&self, reason: &'static str) {
        self.member_lists_aborted.add(reason, 1);
    }

    /// Counts a request that was refused, by the [kind](crate::auth::AuthError::kind) of the reason.
    pub fn denied(&self, kind: &'static str) {
        with_local_recorder(&*self.recorder, || {
            counter!("estimator_auth_failures_total", "reason" => kind).increment(1)
        });
    }

    /// Sets the number of keys of a `kind`, `api` or `jwt`.
    pub fn set_auth_keys(&self, kind: &'static str, keys: usize) {
        with_local_recorder(&*self.recorder, || {
            gauge!("estimator_auth_keys", "kind" => kind).set(gauge_value(Some(keys as u64)));
        });
    }

    /// Sets whether the last reload of the `files`, `keys` or `certificate`, succeeded.
    pub fn set_reload_successful(&self, files: &'static str, is_successful: bool) {
        with_local_recorder(&*self.recorder, || {
            gauge!("estimator_reload_successful", "files" => files).set(f64::from(u8::from(is_successful)));
        });
    }

    /// Sets the number of requests in flight.
    pub fn set_in_flight(&self, requests: usize) {
        self.in_flight.set(gauge_value(Some(requests as u64)));
    }

    /// Counts an opened connection.
    pub fn connected(&self) {
        self.connections.increment(1);
    }

    /// Counts a closed connection.
    pub fn disconnected(&self) {
        self.connections.decrement(1);
    }
}

/// Metrics of a route.
pub struct RouteMetrics {
    recorder: Arc<PrometheusRecorder>,
    path: &'static str,
    method: &'static str,
    duration: Histogram,
    /// A counter for each status that the route has answered with.
    by_status: RwLock<Vec<(u16, Counter)>>,
}

impl RouteMetrics {
    /// Counts a request that was answered with `status` after `took`.
    pub fn answered(&self, status: u16, took: Duration) {
        self.duration.record(took);
        let counters = self.by_status.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = counters.iter().find(|(found, _)| *found == status) {
            counter.increment(1);
            return;
        }
        drop(counters);
        // If another thread does the same concurrently, both get the same counter.
        let (route, method) = (self.path, self.method);
        let name = "estimator_http_requests_total";
        let counter = || counter!(name, "route" => route, "method" => method, "status" => status.to_string());
        let counter = with_local_recorder(&*self.recorder, counter);
        counter.increment(1);
        self.by_status.write().unwrap_or_else(PoisonError::into_inner).push((status, counter));
    }
}
