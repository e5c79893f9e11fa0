//! Monitors health: updates the gauges that no request updates, and logs what Redis reports about eviction.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::domain::{SegmentName, Timestamp};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::{Eviction, EvictionPolicy};

/// Updates gauges at intervals.
#[derive(Debug)]
pub struct HealthMonitor {
    estimator: Estimator,
    clock: Clock,
    segments: Vec<SegmentName<'static>>,
}

impl HealthMonitor {
    /// How often the gauges are updated.
    const INTERVAL: Duration = Duration::from_secs(15);
    /// How often the clock is synchronized and the role of Redis checked: the longest time for which a clock that is
    /// set, or a primary that is demoted, goes unnoticed. Costs Redis about ten microseconds.
    const SYNC_INTERVAL: Duration = Duration::from_secs(1);
    /// How often histograms are compacted. Until then each request takes 16 bytes.
    const UPKEEP_INTERVAL: Duration = Duration::from_millis(250);
    /// The most segments with a gauge of their users.
    pub const MAX_SEGMENTS: usize = 100;

    /// Creates a monitor of `estimator` and `clock`, with a gauge of the users of each of `segments`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, segments: Vec<SegmentName<'static>>) -> Self {
        Self { estimator, clock, segments }
    }

    /// Runs without end.
    pub async fn run(self) {
        let updating = async {
            let (mut ticks, mut evictions) = (ticks(Self::INTERVAL), EvictionLog::default());
            loop {
                ticks.tick().await;
                self.update(self.clock.now()).await;
                // The store logs an outage; the gauge is then NaN.
                let eviction = self.estimator.eviction().await.unwrap_or_default();
                self.estimator.metrics().redis.set_evicted_keys(eviction.evicted_keys);
                evictions.report(eviction);
            }
        };
        let syncing = async {
            let mut ticks = ticks(Self::SYNC_INTERVAL);
            loop {
                ticks.tick().await;
                // The store logs an outage; the clock then continues as before.
                let _ = self.estimator.sync(&self.clock).await;
            }
        };
        let upkeep = async {
            let mut ticks = ticks(Self::UPKEEP_INTERVAL);
            loop {
                ticks.tick().await;
                self.estimator.metrics().run_upkeep();
            }
        };
        tokio::join!(updating, syncing, upkeep);
    }

    /// Updates the gauges once. During an outage they are NaN.
    async fn update(&self, now: Timestamp) {
        let metrics = self.estimator.metrics();
        let segments = self.estimator.segment_count().await.ok();
        metrics.redis.set_segments(segments);
        for segment in &self.segments {
            let users = match segments {
                Some(_) => self.estimator.estimate(segment, now).await.ok(),
                None => None,
            };
            metrics.set_segment_users(segment.as_str(), users);
        }
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
