//! A limit on concurrent costly reads: overlaps, and walks over all segments.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits the concurrent lists. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    max: usize,
    permits: Arc<Semaphore>,
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
#[error("{max} {}", match .reads {
    CostlyReads::Overlaps => "overlaps and audiences are running, and the queue is full or the wait is over",
    CostlyReads::Lists => "lists and requests for users are already running",
})]
pub struct TooMany {
    /// The kind of reads.
    pub reads: CostlyReads,
    /// How many may run at a time.
    pub max: usize,
}

impl ConcurrencyLimit {
    /// Allows `max` concurrent lists.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, permits: Arc::new(Semaphore::new(max)) }
    }

    /// Returns a permit, which is released when it is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if all permits are taken.
    pub fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| TooMany { reads: CostlyReads::Lists, max: self.max })
    }
}
