//! A limit on concurrent costly reads: overlaps, and walks over all segments.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits the concurrent reads of one kind. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    reads: CostlyReads,
    max: usize,
    permits: Arc<Semaphore>,
    /// A permit for each caller in the queue.
    queue: Arc<Semaphore>,
}

/// A kind of read that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostlyReads {
    /// Overlaps and audiences: they read the members of segments.
    Overlaps,
    /// Lists, and requests for a user: they read every segment.
    Lists,
}

/// All permits are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} {} are already running", match .reads {
    CostlyReads::Overlaps => "overlaps and audiences",
    CostlyReads::Lists => "lists and requests for users",
})]
pub struct TooMany {
    /// The kind of reads.
    pub reads: CostlyReads,
    /// How many may run at a time.
    pub max: usize,
}

impl ConcurrencyLimit {
    /// The most callers in the queue for each read that may run: those that share a link to a page open it together.
    const MAX_QUEUED: usize = 8;
    /// How long a caller stays in the queue: longer than an overlap of two segments of a million users
    /// takes, and shorter than clients usually wait for an answer.
    const MAX_WAIT: Duration = Duration::from_secs(5);

    /// Allows `max` concurrent reads of this kind.
    #[must_use]
    pub fn new(reads: CostlyReads, max: usize) -> Self {
        let queue = Arc::new(Semaphore::new(max.saturating_mul(Self::MAX_QUEUED).min(Semaphore::MAX_PERMITS)));
        Self { reads, max, permits: Arc::new(Semaphore::new(max)), queue }
    }

    /// Returns a permit, which is released when it is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if all permits are taken.
    pub fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| TooMany { reads: self.reads, max: self.max })
    }
    /// Returns a permit, which is released when it is dropped. Waits in a queue for [`Self::MAX_WAIT`] at most if all
    /// are taken. A caller that stops waiting leaves the queue.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if the queue is full, or the wait is over.
    pub async fn acquire(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        let refused = || TooMany { reads: self.reads, max: self.max };
        if let Ok(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.queue.try_acquire().map_err(|_| refused())?;
        let permit = tokio::time::timeout(Self::MAX_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        Ok(permit.map_err(|_| refused())?.expect("the semaphore is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn acquire_waits_for_a_permit_and_refuses_beyond_the_queue() {
        let limit = ConcurrencyLimit::new(CostlyReads::Overlaps, 1);
        let running = limit.acquire().await.unwrap();
        let mut queued: Vec<_> = (0..ConcurrencyLimit::MAX_QUEUED).map(|_| Box::pin(limit.acquire())).collect();
        assert!(queued.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let refused = limit.acquire().now_or_never().expect("the queue is full");
        assert_eq!(refused.unwrap_err(), TooMany { reads: CostlyReads::Overlaps, max: 1 });

        // A caller that leaves makes room, and the first of the others gets the permit.
        drop(queued.pop());
        let mut last = Box::pin(limit.acquire());
        assert!((&mut last).now_or_never().is_none());
        drop(running);
        let first = queued.remove(0).await.unwrap();
        assert!(queued.iter_mut().chain([&mut last]).all(|waiting| waiting.now_or_never().is_none()));
        drop(first);
        let _second = queued.remove(0).await.unwrap();
    }
}
