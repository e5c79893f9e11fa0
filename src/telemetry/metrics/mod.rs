//! Metrics: names, descriptions and handles.
//!
//! Each [`Metrics`] has a recorder of its own instead of the global one, so that two services in one process don't mix.
//! Handles are created once, and counting is an atomic addition. No label has text of a caller: values are fixed words,
//! routes, and at most a hundred segments that the operator selects. Counters of API keys are in `http`: they come and go
//! with the keys.

mod describe;
mod http;
mod redis;
mod segments;
mod value;
mod work;

use std::fmt;
use std::sync::Arc;

use ::metrics::{Counter, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use self::describe::describe;
pub use self::http::{HttpMetrics, RouteMetrics};
pub use self::redis::{Persistence, RedisMetrics, Traffic};
use self::segments::SegmentGauges;
pub use self::segments::SegmentUsers;
#[cfg(test)]
pub use self::work::ERROR_KINDS;
pub use self::work::{BatchMetrics, HistoryMetrics, OverlapMetrics, PruneMetrics, VisitMetrics};

/// All metrics of one service.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    process: metrics_process::Collector,
    segments: SegmentGauges,
    /// Requests and connections.
    pub http: HttpMetrics,
    /// The outcome of visits.
    pub visits: VisitMetrics,
    /// Batches of single visits.
    pub visit_batches: BatchMetrics,
    /// Batches of counts.
    pub count_batches: BatchMetrics,
    /// Overlaps and audiences.
    pub overlaps: OverlapMetrics,
    /// Redis, as this service sees it.
    pub redis: RedisMetrics,
    /// Pruning.
    pub prune: PruneMetrics,
    /// Recording the history.
    pub history: HistoryMetrics,
}

/// Buckets for requests, in seconds: a count takes less than a millisecond, a deadline is several seconds.
const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for round trips to Redis, in seconds.
const REDIS_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Buckets for prune runs, in seconds.
const PRUNE_SECONDS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Buckets for the sizes of batches.
const ROUND_SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

impl Metrics {
    /// Creates metrics that start at zero.
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
            let commit = crate::COMMIT.unwrap_or("unknown");
            gauge!("estimator_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => commit).set(1);
            Self {
                http: HttpMetrics::new(&recorder),
                visits: VisitMetrics::new(),
                visit_batches: BatchMetrics::new("visits"),
                count_batches: BatchMetrics::new("counts"),
                overlaps: OverlapMetrics::new(),
                redis: RedisMetrics::new(),
                prune: PruneMetrics::new(),
                history: HistoryMetrics::new(),
                recorder: Arc::clone(&recorder),
                process,
                segments: SegmentGauges::default(),
            }
        })
    }

    /// Renders all metrics in Prometheus's text format, including those of the process.
    #[must_use]
    pub fn render(&self) -> String {
        with_local_recorder(&*self.recorder, || self.process.collect());
        self.recorder.handle().render() + &self.segments.render()
    }

    /// Compacts the histograms. They grow between scrapes otherwise.
    pub fn run_upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Sets the gauges of segments, and removes those of all others.
    pub fn set_segment_users<'a>(&self, users: impl IntoIterator<Item = SegmentUsers<'a>>) {
        self.segments.set(users);
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

/// Counters that differ in the value of one label.
struct Family(Vec<(&'static str, Counter)>);

impl Family {
    /// Creates the counter `name` for each of `values` of `label`. All exist from the start, so that rates start at
    /// zero.
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
    fn new_does_not_share_metrics_within_a_process() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.visits.accepted(3);
        assert!(one.render().contains("\nestimator_visits_accepted_total 3\n"));
        assert!(other.render().contains("\nestimator_visits_accepted_total 0\n"));
    }

    #[test]
    fn render_shows_unknown_values_as_nan() {
        let metrics = Metrics::new();
        let text = metrics.render();
        for name in ["estimator_segments", "estimator_redis_up"] {
            assert!(text.contains(&format!("\n{name} NaN\n")), "not measured yet: {text}");
        }
        metrics.redis.set_segments(Some(7));
        assert!(metrics.render().contains("\nestimator_segments 7\n"));
        metrics.redis.set_segments(None);
        let text = metrics.render();
        assert!(text.contains("\nestimator_segments NaN\n") && text.contains("\nestimator_redis_up 0\n"), "{text}");
    }

    #[test]
    fn set_samples_shows_unknown_values_as_nan() {
        let metrics = Metrics::new();
        metrics.redis.set_samples(Some(3), Some(0.75));
        let text = metrics.render();
        assert!(text.contains("\nestimator_sampled_segments 3\n"), "{text}");
        assert!(text.contains("\nestimator_sample_max_fill_ratio 0.75\n"), "{text}");
        metrics.redis.set_samples(None, None);
        let text = metrics.render();
        for name in ["estimator_sampled_segments", "estimator_sample_max_fill_ratio"] {
            assert!(text.contains(&format!("\n{name} NaN\n")), "{text}");
        }
    }

    #[test]
    fn answered_counts_by_status() {
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
    fn set_segment_users_removes_the_gauges_of_other_segments() {
        let metrics = Metrics::new();
        let users =
            |segment, users| SegmentUsers { segment, users, depth: Some(7), members_kept: users, week_before: Some(5) };
        metrics.set_segment_users([users("news", Some(1)), users("say \"hi\"", None)]);
        let text = metrics.render();
        assert!(text.contains("\nestimator_segment_users{segment=\"news\"} 1\n"), "{text}");
        assert!(text.contains("\nestimator_segment_users{segment=\"say \\\"hi\\\"\"} NaN\n"), "{text}");
        assert!(text.contains("\nestimator_segment_users_week_before{segment=\"news\"} 5\n"), "{text}");
        assert!(text.contains("\nestimator_segment_depth{segment=\"news\"} 7\n"), "{text}");
        assert!(text.contains("\nestimator_segment_members_kept{segment=\"news\"} 1\n"), "{text}");
        metrics.set_segment_users([users("sports", Some(2))]);
        let text = metrics.render();
        assert!(text.contains("{segment=\"sports\"} 2\n") && text.matches("{segment=").count() == 4, "{text}");
    }

    #[test]
    fn render_describes_every_metric() {
        let metrics = Metrics::new();
        metrics.http.route("/segments", "POST").answered(204, Duration::ZERO);
        metrics.http.problem("overloaded");
        metrics.http.denied("no_token");
        metrics.set_segment_users([SegmentUsers {
            segment: "sports",
            users: Some(1),
            depth: Some(0),
            members_kept: Some(1),
            week_before: None,
        }]);
        let text = metrics.render();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
        }
    }
}
