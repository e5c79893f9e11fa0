//! Sampling the counts of all segments at a turn.

use super::interval::Interval;
use super::points::History;
use crate::domain::{SegmentName, Timestamp};
use crate::estimator::estimator::Estimator;
use crate::store::{self, Claim, NamedSample, Sample, Turn};

/// Adds the counts of all segments to their histories. One instance of the service does so at a turn: the one that has the turn's
/// lease.
#[derive(Debug)]
pub struct HistorySampler {
    estimator: Estimator,
    history: History,
    /// A random name, which the lease is given to.
    instance: String,
}

/// The outcome of an attempt to sample a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOutcome {
    /// This instance sampled the turn and added this many points.
    Points(u64),
    /// Another instance has the lease. It may be sampling, or may have failed.
    LeasedByAnother,
    /// The turn, or a later one, was sampled before.
    AlreadyComplete,
}

impl HistorySampler {
    /// How many counts go into one round trip: Redis takes a microsecond or two for each.
    const BATCH: usize = 500;

    /// Samples the counts of `estimator` into `history`.
    #[must_use]
    pub fn new(estimator: Estimator, history: History) -> Self {
        Self { estimator, history, instance: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// How often counts are sampled; `None` if they aren't.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        self.history.interval
    }

    /// Samples the counts of all segments at `now` for `turn`, unless another instance does or has.
    ///
    /// After a failure this instance may try again at once, and another one when the lease has expired. No sample is written twice.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer. Some segments may have their sample.
    pub async fn sample(&self, turn: Timestamp, now: Timestamp) -> Result<SampleOutcome, store::Error> {
        let store = &self.history.store;
        let lease = self.interval().unwrap_or(Interval::DEFAULT).grace() / 4;
        match store.claim_turn(&Claim { turn, now, until: now + lease, by: &self.instance }).await? {
            Turn::Claimed => {}
            Turn::ByAnother => return Ok(SampleOutcome::LeasedByAnother),
            Turn::Done => return Ok(SampleOutcome::AlreadyComplete),
        }
        let page = (Self::BATCH / self.estimator.partitions().map_or(1, |partitions| partitions.count())).max(10);
        let (mut points, mut cursor) = (0, None);
        loop {
            let index = store.index(cursor.as_ref(), page).await?;
            points += self.sample_segments(index.segments, turn, now).await?;
            cursor = index.next;
            if cursor.is_none() {
                break;
            }
        }
        store.end_turn(turn).await?;
        Ok(SampleOutcome::Points(points))
    }

    async fn sample_segments(
        &self,
        segments: Vec<SegmentName<'static>>,
        turn: Timestamp,
        now: Timestamp,
    ) -> Result<u64, store::Error> {
        let cutoff = self.estimator.window().cutoff(now);
        let requests: Vec<_> = segments.into_iter().map(|segment| (segment, cutoff)).collect();
        let counts = self.history.store.counts(&requests.iter().collect::<Vec<_>>()).await?;
        let mut samples = Vec::with_capacity(counts.len());
        for ((segment, _), count) in requests.into_iter().zip(counts) {
            match count {
                Ok(count) => samples.push(NamedSample { segment, sample: Sample { at: turn, count } }),
                // The key holds another type. Pruning logs it.
                Err(store::Error::WrongType { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.history.store.add_samples(&samples).await
    }
}
