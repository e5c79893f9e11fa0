//! A limit on concurrent costly reads: overlaps, and walks over all segments.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits the concurrent reads of one kind. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    reads: CostlyReads,
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
    /// Allows `max` concurrent reads of this kind.
    #[must_use]
    pub fn new(reads: CostlyReads, max: usize) -> Self {
        Self { reads, max, permits: Arc::new(Semaphore::new(max)) }
    }

    /// Returns a permit, which is released when it is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if all permits are taken. Callers don't wait: a queue of costly reads would only grow.
    pub fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| TooMany { reads: self.reads, max: self.max })
    }
}
