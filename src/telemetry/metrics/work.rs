//! Metrics of the work: visits, round trips, Redis, pruning.

use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{Family, known};

/// The kinds of failure that [`store::Error`](crate::redis::Error) knows, as its `kind` names them.
pub const ERROR_KINDS: [&str; 21] = [
    "busy",
    "cluster_down",
    "connect",
    "layout",
    "loading",
    "lost",
    "master_down",
    "misconf",
    "no_auth",
    "no_permission",
    "no_replicas",
    "not_replicated",
    "out_of_memory",
    "overloaded",
    "readonly",
    "refused",
    "timeout",
    "tls",
    "too_old",
    "wrong_password",
    "wrong_type",
];

/// What a visit is called whose caller didn't wait.
const ABANDONED: &str = "abandoned";

/// What became of visits.
pub struct VisitMetrics {
    accepted: Counter,
    expired: Counter,
    rejected: Family,
    failed: Family,
}

impl VisitMetrics {
    pub(super) fn new() -> Self {
        Self {
            accepted: counter!("estimator_visits_accepted_total"),
            expired: counter!("estimator_visits_expired_total"),
            rejected: Family::new(
                "estimator_visits_rejected_total",
                "reason",
                &["not_json", "not_an_object", "fields", "too_long", "too_many_segments"],
            ),
            failed: Family::new("estimator_visits_failed_total", "reason", &[&ERROR_KINDS[..], &[ABANDONED]].concat()),
        }
    }

    /// Redis has acknowledged so many.
    pub fn accepted(&self, visits: u64) {
        self.accepted.increment(visits);
    }

    /// One lay outside the window.
    pub fn expired(&self) {
        self.expired.increment(1);
    }

    /// One is none, for `reason`.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.add(reason, 1);
    }

    /// The caller of one didn't wait for Redis.
    pub fn abandoned(&self) {
        self.failed.add(ABANDONED, 1);
    }

    /// Redis has not acknowledged so many, for a reason of this [kind](crate::redis::Error::kind).
    pub fn failed(&self, kind: &'static str, visits: u64) {
        self.failed.add(kind, visits);
    }
}

/// Round trips that are shared.
#[derive(Clone)]
pub struct BatchMetrics {
    size: Histogram,
    waiting: Gauge,
}

impl BatchMetrics {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            size: histogram!("estimator_round_size", "kind" => kind),
            waiting: gauge!("estimator_round_waiting", "kind" => kind),
        }
    }

    /// A round trip begins with so many questions.
    pub fn begins(&self, questions: usize) {
        self.size.record(known(Some(questions as u64)));
    }

    /// So many wait now for the next.
    pub fn set_pending(&self, questions: usize) {
        self.waiting.set(known(Some(questions as u64)));
    }
}

/// What goes over a connection to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Single visits.
    Visits,
    /// Batches of visits.
    Batches,
    /// Counts, probes and pruning.
    Other,
}

/// Redis as the service meets it.
pub struct RedisMetrics {
    visits: Histogram,
    batches: Histogram,
    other: Histogram,
    errors: Family,
    connects: Family,
    up: Gauge,
    segments: Gauge,
    clock_skew: Gauge,
    evicted_keys: Gauge,
    window: Gauge,
    data_window: Gauge,
}

impl RedisMetrics {
    pub(super) fn new() -> Self {
        let [clock_skew, evicted_keys, window, data_window] = [
            gauge!("estimator_clock_skew_seconds"),
            gauge!("estimator_redis_evicted_keys"),
            gauge!("estimator_window_seconds"),
            gauge!("estimator_data_window_seconds"),
        ];
        for unknown in [&clock_skew, &evicted_keys, &window, &data_window] {
            unknown.set(f64::NAN);
        }
        let duration = |connection| histogram!("estimator_redis_duration_seconds", "connection" => connection);
        Self {
            visits: duration("visits"),
            batches: duration("batches"),
            other: duration("other"),
            errors: Family::new("estimator_redis_errors_total", "kind", &ERROR_KINDS),
            connects: Family::new("estimator_redis_connects_total", "outcome", &["done", "failed"]),
            up: gauge!("estimator_redis_up"),
            segments: gauge!("estimator_segments"),
            clock_skew,
            evicted_keys,
            window,
            data_window,
        }
    }

    /// Redis answered, or not, what was asked at `since` on the connection for `traffic`.
    pub fn answered(&self, traffic: Traffic, since: Instant) {
        let histogram = match traffic {
            Traffic::Visits => &self.visits,
            Traffic::Batches => &self.batches,
            Traffic::Other => &self.other,
        };
        histogram.record(since.elapsed());
    }

    /// A failure of this [kind](crate::redis::Error::kind).
    pub fn failed(&self, kind: &'static str) {
        self.errors.add(kind, 1);
    }

    /// A connection was made, or could not be.
    pub fn connected(&self, is_done: bool) {
        self.connects.add(if is_done { "done" } else { "failed" }, 1);
    }

    /// Redis was asked how many segments the index has; `None` when it didn't answer.
    pub fn set_segments(&self, segments: Option<u64>) {
        self.up.set(if segments.is_some() { 1 } else { 0 });
        self.segments.set(known(segments));
    }

    /// Redis has evicted so many keys since it was started; `None` when it didn't tell.
    pub fn set_evicted_keys(&self, keys: Option<u64>) {
        self.evicted_keys.set(known(keys));
    }

    /// Members are counted over a window of `own` seconds, and kept for `data` seconds.
    pub fn set_windows(&self, own: u64, data: u64) {
        self.window.set(known(Some(own)));
        self.data_window.set(known(Some(data)));
    }

    /// This machine's clock is ahead of Redis's by so many seconds; `None` when Redis didn't tell its time.
    pub fn set_clock_skew(&self, seconds: Option<f64>) {
        self.clock_skew.set(seconds.unwrap_or(f64::NAN));
    }
}

/// Pruning.
pub struct PruneMetrics {
    runs: Family,
    members_removed: Counter,
    duration: Histogram,
    last_success: Gauge,
}

impl PruneMetrics {
    pub(super) fn new() -> Self {
        Self {
            runs: Family::new("estimator_prune_runs_total", "outcome", &["done", "failed"]),
            members_removed: counter!("estimator_prune_members_removed_total"),
            duration: histogram!("estimator_prune_duration_seconds"),
            last_success: gauge!("estimator_prune_last_success_timestamp_seconds"),
        }
    }

    /// A run that ended at `now`, in Unix seconds, has removed so many members in `took`.
    pub fn done(&self, now: f64, members_removed: u64, took: Duration) {
        self.runs.add("done", 1);
        self.members_removed.increment(members_removed);
        self.duration.record(took);
        self.last_success.set(now);
    }

    /// A run failed after `took`.
    pub fn failed(&self, took: Duration) {
        self.runs.add("failed", 1);
        self.duration.record(took);
    }
}

/// Recording the history.
pub struct HistoryMetrics {
    turns: Family,
    points: Counter,
}

impl HistoryMetrics {
    pub(super) fn new() -> Self {
        Self {
            turns: Family::new("estimator_history_turns_total", "outcome", &["done", "failed"]),
            points: counter!("estimator_history_points_total"),
        }
    }

    /// A turn was taken here, and has added so many points.
    pub fn done(&self, points: u64) {
        self.turns.add("done", 1);
        self.points.increment(points);
    }

    /// A turn was missed.
    pub fn failed(&self) {
        self.turns.add("failed", 1);
    }
}
