//! Metrics of visits, batches and jobs.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Family;
use super::value::gauge_value;

/// The values of [`Error::kind`](crate::redis::Error::kind).
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

/// The reason for a visit whose caller stopped waiting.
const ABANDONED: &str = "abandoned";

/// The outcome of visits.
pub struct VisitMetrics {
    accepted: Counter,
    expired: Counter,
    sampled_out: Counter,
    rejected: Family,
    failed: Family,
}

impl VisitMetrics {
    pub(super) fn new() -> Self {
        Self {
            accepted: counter!("estimator_visits_accepted_total"),
            expired: counter!("estimator_visits_expired_total"),
            sampled_out: counter!("estimator_visits_sampled_out_total"),
            rejected: Family::new(
                "estimator_visits_rejected_total",
                "reason",
                &["not_json", "not_an_object", "fields", "too_long", "too_many_segments"],
            ),
            failed: Family::new("estimator_visits_failed_total", "reason", &[&ERROR_KINDS[..], &[ABANDONED]].concat()),
        }
    }

    /// Counts visits that Redis acknowledged.
    pub fn accepted(&self, visits: u64) {
        self.accepted.increment(visits);
    }

    /// Counts visits outside the window.
    pub fn expired(&self, visits: u64) {
        self.expired.increment(visits);
    }

    /// Counts accepted visits that their segments don't keep, because they keep a sample.
    pub fn sampled_out(&self, visits: u64) {
        self.sampled_out.increment(visits);
    }

    /// Counts a rejected visit.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.add(reason, 1);
    }

    /// Counts visits whose caller stopped waiting.
    pub fn abandoned(&self, visits: u64) {
        self.failed.add(ABANDONED, visits);
    }

    /// Counts visits that Redis didn't acknowledge, by the [kind](crate::redis::Error::kind) of the error.
    pub fn failed(&self, kind: &'static str, visits: u64) {
        self.failed.add(kind, visits);
    }
}

/// The queue of overlaps and audiences.
#[derive(Debug, Clone)]
pub struct OverlapMetrics {
    waiting: Gauge,
}

impl OverlapMetrics {
    pub(super) fn new() -> Self {
        let waiting = gauge!("estimator_overlaps_waiting");
        waiting.set(0);
        Self { waiting }
    }

    /// Counts a read that enters the queue.
    pub fn queued(&self) {
        self.waiting.increment(1);
    }

    /// Counts a read that leaves the queue.
    pub fn dequeued(&self) {
        self.waiting.decrement(1);
    }
}

/// Batches of a group commit.
#[derive(Clone)]
pub struct BatchMetrics {
    size: Histogram,
    pending: Gauge,
}

impl BatchMetrics {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            size: histogram!("estimator_round_size", "kind" => kind),
            pending: gauge!("estimator_round_waiting", "kind" => kind),
        }
    }

    /// Counts a batch.
    pub fn committed(&self, requests: usize) {
        self.size.record(gauge_value(Some(requests as u64)));
    }

    /// Sets the number of pending requests.
    pub fn set_pending(&self, requests: usize) {
        self.pending.set(gauge_value(Some(requests as u64)));
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

    /// Counts members that a run removed, whether it was successful or failed afterwards.
    pub fn removed(&self, members: u64) {
        self.members_removed.increment(members);
    }

    /// Counts a successful run that ended at `now`, in Unix seconds.
    pub fn done(&self, now: f64, took: Duration) {
        self.runs.add("done", 1);
        self.duration.record(took);
        self.last_success.set(now);
    }

    /// Counts a failed run.
    pub fn failed(&self, took: Duration) {
        self.runs.add("failed", 1);
        self.duration.record(took);
    }
}

/// Recording the history.
pub struct HistoryMetrics {
    ticks: Family,
    points: Counter,
}

impl HistoryMetrics {
    pub(super) fn new() -> Self {
        Self {
            ticks: Family::new("estimator_history_turns_total", "outcome", &["done", "failed"]),
            points: counter!("estimator_history_points_total"),
        }
    }

    /// Counts a tick that this instance sampled, and the points that it added.
    pub fn done(&self, points: u64) {
        self.ticks.add("done", 1);
        self.points.increment(points);
    }

    /// Counts a tick that no instance sampled.
    pub fn failed(&self) {
        self.ticks.add("failed", 1);
    }
}
