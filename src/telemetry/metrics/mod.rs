//! Metrics: their names, what each means, and the handles that the rest of the service counts with.
//!
//! There is no global recorder: each [`Metrics`] has its own, so that two services in one process don't mix. Handles are
//! made once; counting is an atomic addition. No label takes a caller's text: their values are fixed words, the routes of the
//! router and the segments that the operator names.

mod http;
mod work;

use std::fmt;
use std::sync::Arc;

use ::metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

pub use self::http::{HttpMetrics, RouteMetrics};
#[cfg(test)]
pub use self::work::ERROR_KINDS;
pub use self::work::{BatchMetrics, HistoryMetrics, PruneMetrics, RedisMetrics, Traffic, VisitMetrics};

/// All metrics of one service.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    process: metrics_process::Collector,
    /// Requests and connections.
    pub http: HttpMetrics,
    /// What became of visits.
    pub visits: VisitMetrics,
    /// The shared round trips of single visits.
    pub visit_batches: BatchMetrics,
    /// The shared round trips of counts.
    pub count_batches: BatchMetrics,
    /// Redis as the service meets it.
    pub redis: RedisMetrics,
    /// Pruning.
    pub prune: PruneMetrics,
    /// Recording the history.
    pub history: HistoryMetrics,
}

/// Times of a request, in seconds: a count takes less than a millisecond, a deadline is some seconds.
const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Times of a round trip to Redis, in seconds.
const REDIS_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Times of a prune run, in seconds.
const PRUNE_SECONDS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Questions that shared a round trip.
const ROUND_SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

impl Metrics {
    /// Metrics that start at zero.
    #[must_use]
    pub fn new() -> Self {
        let recorder = [
            ("estimator_http_request_duration_seconds", REQUEST_SECONDS.as_slice()),
            ("estimator_redis_duration_seconds", &REDIS_SECONDS),
            ("estimator_prune_duration_seconds", &PRUNE_SECONDS),
            ("estimator_round_size", &ROUND_SIZES),
        ]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
        });
        let recorder = Arc::new(recorder.expect("there are buckets for each").build_recorder());
        let process = metrics_process::Collector::default();
        with_local_recorder(&*recorder, || {
            describe();
            process.describe();
            gauge!("estimator_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
            Self {
                http: HttpMetrics::new(&recorder),
                visits: VisitMetrics::new(),
                visit_batches: BatchMetrics::new("visits"),
                count_batches: BatchMetrics::new("counts"),
                redis: RedisMetrics::new(),
                prune: PruneMetrics::new(),
                history: HistoryMetrics::new(),
                recorder: Arc::clone(&recorder),
                process,
            }
        })
    }

    /// All metrics in Prometheus's text format. Asks the system about the process, and nobody else.
    #[must_use]
    pub fn render(&self) -> String {
        with_local_recorder(&*self.recorder, || self.process.collect());
        self.recorder.handle().render()
    }

    /// Tidies up what histograms have gathered. It would grow without it while nobody asks for the metrics.
    pub fn tidy(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Sets how many users a segment has that the operator wants to see; NaN when that isn't known.
    pub fn set_segment_users(&self, segment: &str, users: Option<u64>) {
        with_local_recorder(&*self.recorder, || {
            gauge!("estimator_segment_users", "segment" => segment.to_owned()).set(known(users));
        });
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What each metric means, as `/metrics` tells it.
fn describe() {
    describe_gauge!("estimator_build_info", "1, with the version of the service.");
    describe_counter!("estimator_http_requests_total", "Requests answered, by route, method and status.");
    describe_histogram!("estimator_http_request_duration_seconds", "From a request's head to its answer's.");
    describe_gauge!("estimator_http_requests_in_flight", "Requests under way, probes not counted.");
    describe_gauge!("estimator_http_connections", "Open connections.");
    describe_counter!("estimator_http_problems_total", "Errors answered, by the problem's type.");
    describe_counter!("estimator_auth_failures_total", "Requests turned away for want of a token, by reason.");
    describe_gauge!("estimator_auth_keys", "Keys in force, by kind; absent without access control.");
    describe_gauge!("estimator_reload_successful", "Whether keys, and the certificate, could be used when last read.");
    describe_counter!("estimator_visits_accepted_total", "Visits that Redis has acknowledged.");
    describe_counter!("estimator_visits_expired_total", "Visits that lay outside the window already.");
    describe_counter!(
        "estimator_visits_rejected_total",
        "Visits rejected as invalid, or as one segment too many, by reason."
    );
    describe_counter!("estimator_visits_failed_total", "Visits that Redis has not acknowledged, by reason.");
    describe_histogram!("estimator_round_size", "Single visits, or counts, that shared a round trip to Redis.");
    describe_gauge!("estimator_round_waiting", "Single visits, or counts, that wait for the next round trip.");
    describe_histogram!("estimator_redis_duration_seconds", "Time that Redis took to answer, connecting included.");
    describe_counter!("estimator_redis_errors_total", "Failures of Redis, by kind.");
    describe_counter!("estimator_redis_connects_total", "Connections made, or not, to Redis.");
    describe_gauge!("estimator_redis_up", "Whether Redis answered when it was last asked, every 15 seconds.");
    describe_gauge!(
        "estimator_clock_skew_seconds",
        "This machine's time less Redis's, when it was last asked; NaN when not known."
    );
    describe_gauge!(
        "estimator_redis_evicted_keys",
        "Keys that Redis has evicted since it was started, of every program that uses it; NaN when not known."
    );
    describe_gauge!("estimator_window_seconds", "The window that this service counts over; NaN when not known.");
    describe_gauge!(
        "estimator_data_window_seconds",
        "The window that the data set is pruned by: the longest that any instance counts over; NaN when not known."
    );
    describe_counter!("estimator_prune_runs_total", "Runs of the prune job, by outcome.");
    describe_counter!("estimator_prune_members_removed_total", "Expired members removed.");
    describe_histogram!("estimator_prune_duration_seconds", "Time that a run of the prune job took.");
    describe_gauge!("estimator_prune_last_success_timestamp_seconds", "When a run of the prune job last succeeded.");
    describe_counter!(
        "estimator_history_turns_total",
        "Turns of recording the history that this service took, or that nobody did because Redis failed."
    );
    describe_counter!("estimator_history_points_total", "Points added to the histories of segments.");
    describe_gauge!("estimator_segments", "Segments in the index; NaN while Redis doesn't answer.");
    describe_gauge!(
        "estimator_segment_users",
        "Users in the segments that metered_segments names; NaN when not known."
    );
}

fn known(number: Option<u64>) -> f64 {
    // Beyond 2^53 a gauge is a little off, as all of Prometheus's numbers are.
    #[allow(clippy::cast_precision_loss, reason = "see above")]
    number.map_or(f64::NAN, |number| number as f64)
}

/// Counters that differ in one label.
struct Family(Vec<(&'static str, Counter)>);

impl Family {
    /// The counters `name` with each of `values` in `label`. All are there from the start, so that a rate has a zero to rise
    /// from.
    fn new(name: &'static str, label: &'static str, values: &[&'static str]) -> Self {
        Self(values.iter().map(|value| (*value, counter!(name, label => *value))).collect())
    }

    fn add(&self, value: &str, number: u64) {
        let counter = self.0.iter().find(|(known, _)| *known == value).map(|(_, counter)| counter);
        debug_assert!(counter.is_some(), "{value} has no counter");
        if let Some(counter) = counter {
            counter.increment(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_services_in_a_process_have_their_own_metrics() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.visits.accepted(3);
        assert!(one.render().contains("\nestimator_visits_accepted_total 3\n"));
        assert!(other.render().contains("\nestimator_visits_accepted_total 0\n"));
    }

    #[test]
    fn what_is_not_known_is_not_a_number() {
        let metrics = Metrics::new();
        metrics.redis.set_segments(Some(7));
        assert!(metrics.render().contains("\nestimator_segments 7\n"));
        metrics.redis.set_segments(None);
        let text = metrics.render();
        assert!(text.contains("\nestimator_segments NaN\n") && text.contains("\nestimator_redis_up 0\n"), "{text}");
    }

    #[test]
    fn a_route_counts_each_status_that_it_answers_with() {
        let metrics = Metrics::new();
        let route = metrics.http.route("/segments", "POST");
        for status in [204, 503, 204] {
            route.answered(status, Duration::from_millis(3));
        }
        let text = metrics.render();
        for line in [
            r#"estimator_http_requests_total{route="/segments",method="POST",status="204"} 2"#,
            r#"estimator_http_requests_total{route="/segments",method="POST",status="503"} 1"#,
            r#"estimator_http_request_duration_seconds_bucket{route="/segments",method="POST",le="0.0025"} 0"#,
            r#"estimator_http_request_duration_seconds_bucket{route="/segments",method="POST",le="0.005"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_metric_has_its_meaning() {
        let metrics = Metrics::new();
        metrics.http.route("/segments", "POST").answered(204, Duration::ZERO);
        metrics.http.problem("overloaded");
        metrics.http.denied("no_token");
        metrics.set_segment_users("sports", Some(1));
        let text = metrics.render();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
        }
    }
}
