//! Taking the turns: at each, one of all services that share a Redis samples the counts of all segments.

use std::future::pending;
use std::time::Duration;

use crate::domain::{SegmentName, Timestamp};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::{History, Interval};
use crate::store::{self, Claim, NamedSample, Sample, Turn};

/// Samples the counts of all segments at every turn, unless another service does.
#[derive(Debug)]
pub struct Recorder {
    estimator: Estimator,
    clock: Clock,
    history: History,
    /// Tells this one from others.
    name: String,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It was ours: so many points were added.
    Points(u64),
    /// Another is at it, or was until it failed.
    ByAnother,
    /// It was done already.
    Before,
    /// It isn't this turn by the clock of Redis.
    AtAnotherTime,
}

impl Recorder {
    /// How many counts go into one round trip: Redis takes a microsecond or two for each.
    const AT_ONCE: usize = 500;
    /// How long is slept at the most, so that a clock that is set is noticed.
    const LONGEST_SLEEP: Duration = Duration::from_secs(15);

    /// A recorder of the counts of `estimator` into `history`, by `clock`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, history: History) -> Self {
        Self { estimator, clock, history, name: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// Takes turns for ever. A turn that is broken off is taken up again, here or by another service, for as long as its
    /// [grace](Interval::grace) lasts; then it is a gap.
    pub async fn run(self) {
        let Some(interval) = self.history.interval else { return pending().await };
        let mut done = None;
        loop {
            let now = self.clock.now();
            let turn = interval.turn(now);
            if done != Some(turn) && now < turn + interval.grace() {
                self.attend(interval, turn).await;
            }
            // Whatever became of it: nothing more can.
            done = Some(turn);
            let next = turn + interval.duration();
            tokio::time::sleep(until(self.clock.now(), next).min(Self::LONGEST_SLEEP)).await;
        }
    }

    /// Sees that `turn` is taken by somebody. A failure is logged when nobody can make up for it any more.
    async fn attend(&self, interval: Interval, turn: Timestamp) {
        let metrics = &self.estimator.metrics().history;
        let end = turn + interval.grace();
        let pause = (interval.grace() / 20).min(Self::LONGEST_SLEEP);
        let failure = loop {
            let failure = match self.try_once(interval, turn).await {
                Ok(Recorded::Points(points)) => {
                    tracing::debug!(%turn, points, "recorded the history");
                    return metrics.done(points);
                }
                Ok(Recorded::Before | Recorded::AtAnotherTime) => return,
                Ok(Recorded::ByAnother) => None,
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

    async fn try_once(&self, interval: Interval, turn: Timestamp) -> Result<Recorded, store::Error> {
        // By the clock that all services agree on, which may say that the turn is another: a sample that is ahead of its time would
        // keep all out that come before.
        self.estimator.compare_clock(&self.clock).await?;
        let now = self.clock.now();
        if interval.turn(now) != turn {
            return Ok(Recorded::AtAnotherTime);
        }
        self.record(turn, now).await
    }

    /// Takes the turn at `turn`, unless another does or has: samples at `now` the counts of all segments that there are.
    ///
    /// Who breaks off may go on, and so may another after a while. No sample is written twice.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer. Some segments may have their sample.
    pub async fn record(&self, turn: Timestamp, now: Timestamp) -> Result<Recorded, store::Error> {
        let store = &self.history.store;
        let lease = self.history.interval.unwrap_or(Interval::USUAL).grace() / 4;
        match store.claim_turn(&Claim { turn, now, until: now + lease, by: &self.name }).await? {
            Turn::Claimed => {}
            Turn::ByAnother => return Ok(Recorded::ByAnother),
            Turn::Done => return Ok(Recorded::Before),
        }
        let page = (Self::AT_ONCE / self.estimator.partitions().map_or(1, |partitions| partitions.count())).max(10);
        let (mut points, mut cursor) = (0, None);
        loop {
            let index = store.index(cursor.as_ref(), page).await?;
            points += self.sample(index.segments, turn, now).await?;
            cursor = index.next;
            if cursor.is_none() {
                break;
            }
        }
        store.end_turn(turn).await?;
        Ok(Recorded::Points(points))
    }

    async fn sample(
        &self,
        segments: Vec<SegmentName<'static>>,
        turn: Timestamp,
        now: Timestamp,
    ) -> Result<u64, store::Error> {
        let cutoff = self.estimator.window().cutoff(now);
        let questions: Vec<_> = segments.into_iter().map(|segment| (segment, cutoff)).collect();
        let counts = self.history.store.counts(&questions.iter().collect::<Vec<_>>()).await?;
        let mut samples = Vec::with_capacity(counts.len());
        for ((segment, _), count) in questions.into_iter().zip(counts) {
            match count {
                Ok(count) => samples.push(NamedSample { segment, sample: Sample { at: turn, count } }),
                // Its key holds something else, of which pruning tells.
                Err(error) if error.is_wrong_type() => {}
                Err(error) => return Err(error),
            }
        }
        self.history.store.add_samples(&samples).await
    }
}

/// How long it is from `now` until `then`: nothing if that is over.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(then.as_millis() - now.as_millis()).unwrap_or_default())
}
