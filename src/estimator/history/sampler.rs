//! Samples the counts of all segments at a tick.

use super::interval::Interval;
use super::points::History;
use crate::domain::{SegmentName, Timestamp};
use crate::estimator::estimator::Estimator;
use crate::store::{self, CountQuery, Lease, LeaseRequest, NamedSample, Sample};

/// Adds the counts of all segments to their histories. At each tick one instance of the service does so: the one that
/// acquires the lease of the tick.
#[derive(Debug)]
pub struct HistorySampler {
    estimator: Estimator,
    history: History,
    /// A random name, for the lease.
    instance: String,
}

/// The outcome of an attempt to sample a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOutcome {
    /// This instance sampled the tick, and added this many points.
    Points(u64),
    /// Another instance has the lease: it is sampling, or it failed and its lease has not expired.
    LeasedByAnother,
    /// The tick, or a later one, has been sampled.
    AlreadyComplete,
}

impl HistorySampler {
    /// Segments counted in one round trip with one partition. Redis takes a microsecond or two for each count.
    const BATCH: usize = 500;

    /// Samples the counts of `estimator` into `history`.
    #[must_use]
    pub fn new(estimator: Estimator, history: History) -> Self {
        Self { estimator, history, instance: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// Returns how often counts are sampled; `None` if they aren't.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        self.history.interval
    }

    /// Acquires the lease of `tick`, samples the counts of all segments at `now`, updates their changes, and completes
    /// the tick.
    ///
    /// Idempotent. After a failure this instance may retry at once, and another one when the lease has expired.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed. Some segments may have their sample.
    pub async fn sample(&self, tick: Timestamp, now: Timestamp) -> Result<SampleOutcome, store::Error> {
        let store = &self.history.store;
        let lease = self.interval().unwrap_or(Interval::DEFAULT).lease();
        match store.acquire_lease(&LeaseRequest { tick, now, until: now + lease, holder: &self.instance }).await? {
            Lease::Acquired => {}
            Lease::HeldByAnother => return Ok(SampleOutcome::LeasedByAnother),
            Lease::Completed => return Ok(SampleOutcome::AlreadyComplete),
        }
        let page = self.estimator.segments_per_request(Self::BATCH);
        let (mut points, mut cursor) = (0, None);
        loop {
            let index = store.index(cursor.as_ref(), page).await?;
            points += self.sample_segments(index.segments, tick, now).await?;
            cursor = index.next;
            if cursor.is_none() {
                break;
            }
        }
        store.complete_tick(tick).await?;
        Ok(SampleOutcome::Points(points))
    }

    async fn sample_segments(
        &self,
        segments: Vec<SegmentName<'static>>,
        tick: Timestamp,
        now: Timestamp,
    ) -> Result<u64, store::Error> {
        let window = self.estimator.window();
        let requests: Vec<_> =
            segments.into_iter().map(|segment| CountQuery { segment, cutoff: window.cutoff(now) }).collect();
        let counts = self.history.store.counts(&requests.iter().collect::<Vec<_>>()).await?;
        let mut samples = Vec::with_capacity(counts.len());
        for (CountQuery { segment, .. }, count) in requests.into_iter().zip(counts) {
            match count {
                Ok(count) => samples.push(NamedSample { segment, sample: Sample { at: tick, count } }),
                // The key holds another type. Pruning logs it.
                Err(error) if error.is_wrong_type() => {}
                Err(error) => return Err(error),
            }
        }
        let points = self.history.store.add_samples(&samples).await?;
        let sampled: Vec<_> = samples.iter().map(|named| (&named.segment, tick)).collect();
        self.history.store.update_changes(&sampled, window).await?;
        Ok(points)
    }
}
