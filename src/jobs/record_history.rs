//! Recording the history: at each turn of the interval, one instance of the service samples the counts of all segments.

use std::future::pending;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::{History, HistorySampler, Interval, SampleOutcome};
use crate::store;

/// Records the history until it is dropped.
#[derive(Debug)]
pub struct HistoryRecorder {
    estimator: Estimator,
    clock: Clock,
    sampler: HistorySampler,
}

impl HistoryRecorder {
    /// The longest sleep, after which the clock is read again: it may have been set.
    const MAX_SLEEP: Duration = Duration::from_secs(15);

    /// Records the counts of `estimator` into `history` at the turns of `clock`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, history: History) -> Self {
        Self { sampler: HistorySampler::new(estimator.clone(), history), estimator, clock }
    }

    /// Samples every turn. If an instance fails, this or another one tries again within the turn's [grace](Interval::grace). If that
    /// is over, the history has a gap.
    pub async fn run(self) {
        let Some(interval) = self.sampler.interval() else { return pending().await };
        let mut done = None;
        loop {
            let now = self.clock.now();
            let turn = interval.turn(now);
            if done != Some(turn) && now < turn + interval.grace() {
                self.record(interval, turn).await;
            }
            // After a failure, too: the grace is over.
            done = Some(turn);
            let next = turn + interval.duration();
            tokio::time::sleep(until(self.clock.now(), next).min(Self::MAX_SLEEP)).await;
        }
    }

    /// Retries until this or another instance has sampled `turn`. Logs a failure when the grace is over.
    async fn record(&self, interval: Interval, turn: Timestamp) {
        let metrics = &self.estimator.metrics().history;
        let end = turn + interval.grace();
        let pause = (interval.grace() / 20).min(Self::MAX_SLEEP);
        let failure = loop {
            let failure = match self.try_sample(interval, turn).await {
                Ok(SampleOutcome::Points(points)) => {
                    tracing::debug!(%turn, points, "recorded the history");
                    return metrics.done(points);
                }
                Ok(SampleOutcome::AlreadyComplete) => return,
                Ok(SampleOutcome::LeasedByAnother) => None,
                Err(error) => Some(error),
            };
            tokio::time::sleep(pause).await;
            if self.clock.now() >= end {
                break failure;
            }
        };
        if let Some(error) = failure {
            metrics.failed();
            tracing::warn!(%error, %turn, "could not record the history; it has a gap");
        }
    }

    async fn try_sample(&self, interval: Interval, turn: Timestamp) -> Result<SampleOutcome, store::Error> {
        // All instances go by this clock. A sample with a time ahead of it would keep out those that are earlier.
        self.estimator.sync(&self.clock).await?;
        let now = self.clock.now();
        if interval.turn(now) != turn {
            return Ok(SampleOutcome::AlreadyComplete);
        }
        self.sampler.sample(turn, now).await
    }
}

/// The time from `now` until `then`, or zero.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(then.as_millis() - now.as_millis()).unwrap_or_default())
}
