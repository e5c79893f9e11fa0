//! The queue of the reads that wait for a permit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::error::OverlapError;
use crate::estimator::error::{CostlyReads, TooMany};
use crate::telemetry::OverlapMetrics;

/// Limits the reads that run, and queues further ones. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ReadQueue {
    max: usize,
    max_wait: Duration,
    permits: Arc<Semaphore>,
    /// A permit for each read in the queue.
    queue: Arc<Semaphore>,
    metrics: OverlapMetrics,
}

impl ReadQueue {
    /// The most reads in the queue for each that may run.
    pub const MAX_QUEUED: usize = 8;

    /// Allows `max` concurrent reads. Further ones wait for `max_wait` at most, and are counted in `metrics`.
    pub fn new(max: usize, max_wait: Duration, metrics: OverlapMetrics) -> Self {
        let queue = Arc::new(Semaphore::new(max.saturating_mul(Self::MAX_QUEUED).min(Semaphore::MAX_PERMITS)));
        Self { max, max_wait, permits: Arc::new(Semaphore::new(max)), queue, metrics }
    }

    /// Returns a permit, which is released when it is dropped. Waits in the queue if all are taken. A caller that stops
    /// waiting leaves the queue.
    pub async fn acquire(&self) -> Result<OwnedSemaphorePermit, OverlapError> {
        let refused = || TooMany { reads: CostlyReads::Overlaps, max: self.max };
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(OverlapError::Stopping),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _queued = self.queue.try_acquire().map_err(|_| refused())?;
        self.metrics.queued();
        let _leave = scopeguard::guard((), |()| self.metrics.dequeued());
        let permit = tokio::time::timeout(self.max_wait, Arc::clone(&self.permits).acquire_owned()).await;
        permit.map_err(|_| refused())?.map_err(|_| OverlapError::Stopping)
    }

    /// Refuses the reads in the queue, and all later ones. Those that run continue.
    pub fn close(&self) {
        self.permits.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::telemetry::Metrics;

    const MINUTE: Duration = Duration::from_secs(60);
    const REFUSED: TooMany = TooMany { reads: CostlyReads::Overlaps, max: 1 };

    #[tokio::test]
    async fn acquire_waits_for_a_permit_and_refuses_beyond_the_queue() {
        let metrics = Metrics::new();
        let limit = ReadQueue::new(1, MINUTE, metrics.overlaps.clone());
        let is_waiting = |reads: usize| metrics.render().contains(&format!("\nestimator_overlaps_waiting {reads}\n"));
        let running = limit.acquire().await.unwrap();
        assert!(is_waiting(0));
        let mut queued: Vec<_> = (0..ReadQueue::MAX_QUEUED).map(|_| Box::pin(limit.acquire())).collect();
        assert!(queued.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert!(is_waiting(ReadQueue::MAX_QUEUED));
        let refused = limit.acquire().now_or_never().expect("the queue is full");
        assert!(matches!(refused, Err(OverlapError::TooMany(REFUSED))), "{refused:?}");

        // A caller that leaves makes room, and the first of the others gets the permit.
        drop(queued.pop());
        assert!(is_waiting(ReadQueue::MAX_QUEUED - 1));
        let mut last = Box::pin(limit.acquire());
        assert!((&mut last).now_or_never().is_none());
        drop(running);
        let first = queued.remove(0).await.unwrap();
        assert!(queued.iter_mut().chain([&mut last]).all(|waiting| waiting.now_or_never().is_none()));
        drop(first);
        let _second = queued.remove(0).await.unwrap();
        drop((queued, last));
        assert!(is_waiting(0));
    }

    #[tokio::test]
    async fn close_refuses_the_queue_and_later_reads() {
        let limit = ReadQueue::new(1, MINUTE, Metrics::new().overlaps);
        let running = limit.acquire().await.unwrap();
        let mut queued = Box::pin(limit.acquire());
        assert!((&mut queued).now_or_never().is_none());
        limit.close();
        assert!(matches!(queued.await, Err(OverlapError::Stopping)));
        drop(running);
        assert!(matches!(limit.acquire().await, Err(OverlapError::Stopping)));
    }

    #[tokio::test]
    async fn acquire_refuses_when_the_wait_is_over() {
        let limit = ReadQueue::new(1, Duration::from_millis(1), Metrics::new().overlaps);
        let _running = limit.acquire().await.unwrap();
        let refused = limit.acquire().await;
        assert!(matches!(refused, Err(OverlapError::TooMany(REFUSED))), "{refused:?}");
    }
}
