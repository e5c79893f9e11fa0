//! Metrics of Redis.

use std::time::Instant;

use ::metrics::{Gauge, Histogram, gauge, histogram};

use super::Family;
use super::value::gauge_value;
use super::work::ERROR_KINDS;

/// The purpose of a connection to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Single visits.
    Visits,
    /// Batches of visits.
    Batches,
    /// Counts, probes and pruning.
    Other,
}

/// What Redis writes to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// A command, to the append-only file.
    Append,
    /// The append-only file anew.
    Rewrite,
    /// A snapshot.
    Snapshot,
}

impl Persistence {
    const ALL: [Self; 3] = [Self::Append, Self::Rewrite, Self::Snapshot];

    const fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Rewrite => "rewrite",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Redis, as this service sees it.
pub struct RedisMetrics {
    visits: Histogram,
    batches: Histogram,
    other: Histogram,
    errors: Family,
    connects: Family,
    up: Gauge,
    segments: Gauge,
    sampled_segments: Gauge,
    sample_max_fill_ratio: Gauge,
    clock_skew: Gauge,
    evicted_keys: Gauge,
    used_memory: Gauge,
    max_memory: Gauge,
    memory_ratio: Gauge,
    append_only_file: Gauge,
    persistence: [Gauge; 3],
    window: Gauge,
    data_window: Gauge,
}

impl RedisMetrics {
    pub(super) fn new() -> Self {
        let persistence = Persistence::ALL.map(|operation| {
            let gauge = gauge!("estimator_redis_persistence_ok", "operation" => operation.label());
            unknown(gauge)
        });
        let duration = |connection| histogram!("estimator_redis_duration_seconds", "connection" => connection);
        Self {
            visits: duration("visits"),
            batches: duration("batches"),
            other: duration("other"),
            errors: Family::new("estimator_redis_errors_total", "kind", &ERROR_KINDS),
            connects: Family::new("estimator_redis_connects_total", "outcome", &["done", "failed"]),
            up: unknown(gauge!("estimator_redis_up")),
            segments: unknown(gauge!("estimator_segments")),
            sampled_segments: unknown(gauge!("estimator_sampled_segments")),
            sample_max_fill_ratio: unknown(gauge!("estimator_sample_max_fill_ratio")),
            clock_skew: unknown(gauge!("estimator_clock_skew_seconds")),
            evicted_keys: unknown(gauge!("estimator_redis_evicted_keys")),
            used_memory: unknown(gauge!("estimator_redis_used_memory_bytes")),
            max_memory: unknown(gauge!("estimator_redis_max_memory_bytes")),
            memory_ratio: unknown(gauge!("estimator_redis_memory_ratio")),
            append_only_file: unknown(gauge!("estimator_redis_append_only_file_bytes")),
            persistence,
            window: unknown(gauge!("estimator_window_seconds")),
            data_window: unknown(gauge!("estimator_data_window_seconds")),
        }
    }

    /// Records the time since a request was sent on the connection for `traffic`, whether Redis answered or failed.
    pub fn observe_exchange(&self, traffic: Traffic, since: Instant) {
        let histogram = match traffic {
            Traffic::Visits => &self.visits,
            Traffic::Batches => &self.batches,
            Traffic::Other => &self.other,
        };
        histogram.record(since.elapsed());
    }

    /// Counts an error of this [kind](crate::redis::Error::kind).
    pub fn failed(&self, kind: &'static str) {
        self.errors.add(kind, 1);
    }

    /// Counts an attempt to connect.
    pub fn connected(&self, is_done: bool) {
        self.connects.add(if is_done { "done" } else { "failed" }, 1);
    }

    /// Sets the number of segments in the index; `None` if Redis didn't answer.
    pub fn set_segments(&self, segments: Option<u64>) {
        self.up.set(if segments.is_some() { 1 } else { 0 });
        self.segments.set(gauge_value(segments));
    }

    /// Sets the number of segments that keep a sample, and how full the fullest one is; `None` if unknown.
    pub fn set_samples(&self, segments: Option<u64>, max_fill_ratio: Option<f64>) {
        self.sampled_segments.set(gauge_value(segments));
        self.sample_max_fill_ratio.set(max_fill_ratio.unwrap_or(f64::NAN));
    }

    /// Sets the number of keys that Redis has evicted since its start; `None` if unknown.
    pub fn set_evicted_keys(&self, keys: Option<u64>) {
        self.evicted_keys.set(gauge_value(keys));
    }

    /// Sets the memory in use and its limit in bytes, and the used fraction of the fullest server; `None` if unknown.
    pub fn set_memory(&self, used: Option<u64>, limit: Option<u64>, ratio: Option<f64>) {
        self.used_memory.set(gauge_value(used));
        self.max_memory.set(gauge_value(limit));
        self.memory_ratio.set(ratio.unwrap_or(f64::NAN));
    }

    /// Sets the size of the append-only files in bytes; `None` if unknown.
    pub fn set_append_only_file(&self, bytes: Option<u64>) {
        self.append_only_file.set(gauge_value(bytes));
    }

    /// Sets whether Redis could do this last time; `None` if unknown.
    pub fn set_persistence(&self, operation: Persistence, is_ok: Option<bool>) {
        self.persistence[operation as usize].set(gauge_value(is_ok.map(u64::from)));
    }

    /// Sets the windows of this instance and of the data set, in seconds.
    pub fn set_windows(&self, own: u64, data: u64) {
        self.window.set(gauge_value(Some(own)));
        self.data_window.set(gauge_value(Some(data)));
    }

    /// Sets how far this machine's clock is ahead of Redis's; `None` if unknown.
    pub fn set_clock_skew(&self, seconds: Option<f64>) {
        self.clock_skew.set(seconds.unwrap_or(f64::NAN));
    }
}

/// Sets `gauge` to NaN until its value is known.
fn unknown(gauge: Gauge) -> Gauge {
    gauge.set(f64::NAN);
    gauge
}
