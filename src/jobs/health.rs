//! Monitors health: updates the gauges that no request updates, and logs what Redis reports about eviction.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::segment_meter::SegmentMeter;
use super::segment_pattern::SegmentPattern;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::{Eviction, EvictionPolicy, Resources};
use crate::telemetry::{Persistence, RedisMetrics};

/// Updates gauges at intervals.
#[derive(Debug)]
pub struct HealthMonitor {
    estimator: Estimator,
    clock: Clock,
    meter: SegmentMeter,
}

impl HealthMonitor {
    /// How often the gauges are updated.
    const INTERVAL: Duration = Duration::from_secs(15);
    /// How often the clock is synchronized and the role of Redis checked: the longest time for which a clock that is
    /// set, or a primary that is demoted, goes unnoticed. Costs Redis about ten microseconds.
    const SYNC_INTERVAL: Duration = Duration::from_secs(1);
    /// How often histograms are compacted. Until then each request takes 16 bytes.
    const UPKEEP_INTERVAL: Duration = Duration::from_millis(250);

    /// Creates a monitor of `estimator` and `clock`, with gauges of the users of each segment that matches `patterns`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, patterns: Vec<SegmentPattern>) -> Self {
        Self { meter: SegmentMeter::new(estimator.clone(), patterns), estimator, clock }
    }

    /// Runs without end.
    pub async fn run(self) {
        let Self { estimator, clock, mut meter } = self;
        let updating = async {
            let (mut ticks, mut evictions) = (ticks(Self::INTERVAL), EvictionLog::default());
            loop {
                ticks.tick().await;
                // The store logs an outage; the gauges are then NaN.
                let segments = estimator.segment_count().await.ok();
                estimator.metrics().redis.set_segments(segments);
                let (sampled, max_fill_ratio) = segments.map_or((None, None), |_| estimator.samples());
                estimator.metrics().redis.set_samples(sampled, max_fill_ratio);
                let resources = estimator.resources().await.unwrap_or_default();
                report_resources(&estimator.metrics().redis, &resources);
                evictions.report(resources.eviction);
            }
        };
        // Finding the largest segments counts all of them. The report of evictions must not wait for that.
        let metering = async {
            let mut ticks = ticks(Self::INTERVAL);
            loop {
                ticks.tick().await;
                meter.measure(clock.now()).await;
            }
        };
        let syncing = async {
            let mut ticks = ticks(Self::SYNC_INTERVAL);
            loop {
                ticks.tick().await;
                // The store logs an outage; the clock then continues as before.
                let _ = estimator.sync(&clock).await;
            }
        };
        let upkeep = async {
            let mut ticks = ticks(Self::UPKEEP_INTERVAL);
            loop {
                ticks.tick().await;
                estimator.metrics().run_upkeep();
            }
        };
        tokio::join!(updating, metering, syncing, upkeep);
    }
}

/// Updates the gauges of Redis's memory and persistence.
fn report_resources(metrics: &RedisMetrics, resources: &Resources) {
    metrics.set_evicted_keys(resources.eviction.evicted_keys);
    metrics.set_memory(resources.used_memory, resources.max_memory, resources.memory_ratio);
    metrics.set_append_only_file(resources.append_only_file);
    for (operation, is_ok) in [
        (Persistence::Append, resources.is_append_ok),
        (Persistence::Rewrite, resources.is_rewrite_ok),
        (Persistence::Snapshot, resources.is_snapshot_ok),
    ] {
        metrics.set_persistence(operation, is_ok);
    }
}

/// Logs what Redis reports about eviction, once.
#[derive(Debug, Default)]
struct EvictionLog {
    policy: Option<EvictionPolicy>,
    evicted_keys: Option<u64>,
}

impl EvictionLog {
    /// Warns about a policy that evicts keys, and about keys evicted since the last report.
    fn report(&mut self, Eviction { policy, evicted_keys }: Eviction) {
        if let Some(policy) = policy.filter(|policy| self.policy.as_ref() != Some(policy)) {
            if policy.evicts() {
                tracing::warn!("Redis {policy}");
            }
            self.policy = Some(policy);
        }
        if let Some(evicted) = evicted_keys {
            // Redis resets the number when it restarts.
            let before = self.evicted_keys.replace(evicted).filter(|before| *before <= evicted);
            let new = before.map_or(0, |before| evicted - before);
            if new > 0 {
                tracing::warn!(
                    evicted_keys = new,
                    "Redis evicted keys; if they are this service's, data is lost and counts are wrong"
                );
            }
        }
    }
}

/// Ticks at once and then every `interval`. After a late tick the next one comes an interval later.
fn ticks(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
