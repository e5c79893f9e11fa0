//! Records the history: at each tick, one instance of the service samples the counts of all segments.

use std::future::pending;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::{History, HistorySampler, Interval, SampleOutcome};
use crate::store;

/// Records the history at every tick.
#[derive(Debug)]
pub struct HistoryRecorder {
    estimator: Estimator,
    clock: Clock,
    sampler: HistorySampler,
}

impl HistoryRecorder {
    /// The longest sleep. The clock may be set in the meantime, so it is read again.
    const MAX_SLEEP: Duration = Duration::from_secs(15);

    /// Creates a recorder of the counts of `estimator` into `history`, with the ticks of `clock`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, history: History) -> Self {
        Self { sampler: HistorySampler::new(estimator.clone(), history), estimator, clock }
    }

    /// Samples every tick, without end. After a failure, this or another instance retries until the tick's
    /// [deadline](Interval::deadline). After it, the history has a gap.
    pub async fn run(self) {
        let Some(interval) = self.sampler.interval() else { return pending().await };
        let mut done = None;
        loop {
            let now = self.clock.now();
            let tick = interval.tick(now);
            if done != Some(tick) && now < interval.deadline(tick) {
                self.record(interval, tick).await;
            }
            // Also after a failure: the deadline has passed.
            done = Some(tick);
            let next = tick + interval.duration();
            tokio::time::sleep(until(self.clock.now(), next).min(Self::MAX_SLEEP)).await;
        }
    }

    /// Retries until this or another instance has sampled `tick`. Logs the last failure at the deadline.
    async fn record(&self, interval: Interval, tick: Timestamp) {
        let metrics = &self.estimator.metrics().history;
        let deadline = interval.deadline(tick);
        let pause = interval.retry_pause().min(Self::MAX_SLEEP);
        let failure = loop {
            let failure = match self.try_sample(interval, tick).await {
                Ok(SampleOutcome::Points(points)) => {
                    tracing::debug!(%tick, points, "recorded the history");
                    return metrics.done(points);
                }
                Ok(SampleOutcome::AlreadyComplete) => return,
                Ok(SampleOutcome::LeasedByAnother) => None,
                Err(error) => Some(error),
            };
            tokio::time::sleep(pause).await;
            if self.clock.now() >= deadline {
                break failure;
            }
        };
        if let Some(error) = failure {
            metrics.failed();
            tracing::warn!(%error, %tick, "failed to record the history; it has a gap at this tick");
        }
    }

    async fn try_sample(&self, interval: Interval, tick: Timestamp) -> Result<SampleOutcome, store::Error> {
        // Histories only grow at the end, so a sample with a time in the future would block those before it.
        self.estimator.sync(&self.clock).await?;
        let now = self.clock.now();
        if interval.tick(now) != tick {
            return Ok(SampleOutcome::AlreadyComplete);
        }
        self.sampler.sample(tick, now).await
    }
}

/// Returns the time from `now` until `then`, or zero.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(then.as_millis() - now.as_millis()).unwrap_or_default())
}
