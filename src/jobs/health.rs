//! What is measured at intervals and not at an event: whether Redis answers, whether its clock agrees with ours, whether it
//! evicts keys, how many segments there are, and the users of the few segments that the operator wants to see.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::domain::{SegmentName, Timestamp};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::{Eviction, EvictionPolicy};

/// Samples until it is dropped.
#[derive(Debug)]
pub struct HealthMonitor {
    estimator: Estimator,
    clock: Clock,
    segments: Vec<SegmentName<'static>>,
}

impl HealthMonitor {
    /// How often Redis is asked what the metrics tell.
    const INTERVAL: Duration = Duration::from_secs(15);
    /// How often it is asked whether it serves, is a primary, and what the time is. For so long at the most a clock that is set, or
    /// a primary that is demoted, may go unseen; it costs Redis some ten microseconds.
    const LOOKING: Duration = Duration::from_secs(1);
    /// How often histograms are tidied up. Each request leaves 16 bytes in them until then.
    const TIDYING: Duration = Duration::from_secs(1);
    /// The most segments whose users are counted at each turn.
    pub const MAX_SEGMENTS: usize = 100;

    /// A sampler of `estimator`, of `clock` and of the users of `segments`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, segments: Vec<SegmentName<'static>>) -> Self {
        Self { estimator, clock, segments }
    }

    /// Samples at once and then at intervals, for ever.
    pub async fn run(self) {
        let sampling = async {
            let (mut turns, mut evictions) = (turns(Self::INTERVAL), EvictionLog::default());
            loop {
                turns.tick().await;
                self.sample(self.clock.now()).await;
                // When Redis doesn't answer, the store logs it, and the number isn't known.
                let eviction = self.estimator.eviction().await.unwrap_or_default();
                self.estimator.metrics().redis.set_evicted_keys(eviction.evicted_keys);
                evictions.report(eviction);
            }
        };
        let looking = async {
            let mut turns = turns(Self::LOOKING);
            loop {
                turns.tick().await;
                // When Redis doesn't answer, the store logs it, and the clock goes on as it did.
                let _ = self.estimator.sync(&self.clock).await;
            }
        };
        let tidying = async {
            let mut turns = turns(Self::TIDYING);
            loop {
                turns.tick().await;
                self.estimator.metrics().tidy();
            }
        };
        tokio::join!(sampling, looking, tidying);
    }

    /// One turn. When Redis doesn't answer, the store logs it, and what isn't known is NaN.
    pub async fn sample(&self, now: Timestamp) {
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

/// Logs what Redis tells of eviction, each thing once.
#[derive(Debug, Default)]
struct EvictionLog {
    policy: Option<EvictionPolicy>,
    evicted_keys: Option<u64>,
}

impl EvictionLog {
    /// Warns of a policy that evicts, and of keys that were evicted since the last report.
    fn report(&mut self, Eviction { policy, evicted_keys }: Eviction) {
        if let Some(policy) = policy.filter(|policy| self.policy.as_ref() != Some(policy)) {
            if policy.evicts() {
                tracing::warn!("Redis {policy}");
            }
            self.policy = Some(policy);
        }
        if let Some(evicted) = evicted_keys {
            // The number begins at 0 when Redis is started again.
            let before = self.evicted_keys.replace(evicted).filter(|before| *before <= evicted);
            let new = before.map_or(0, |before| evicted - before);
            if new > 0 {
                tracing::warn!(
                    evicted_keys = new,
                    "Redis has evicted keys; if they are ours, data is lost and counts are wrong"
                );
            }
        }
    }
}

/// A turn at once and then after each `interval`. Turns that were missed are not made up for.
fn turns(interval: Duration) -> Interval {
    let mut turns = tokio::time::interval(interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}
