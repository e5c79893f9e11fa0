//! A limit on how many costly reads run at a time: overlaps, and walks over all segments.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits how many reads of one kind run at a time. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    reads: CostlyReads,
    max: usize,
    permits: Arc<Semaphore>,
}

/// The kinds of reads that are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostlyReads {
    /// Overlaps, which read the members of segments.
    Overlaps,
    /// Lists, and requests for a user: they visit every segment.
    Lists,
}

/// As many reads as are allowed at a time are running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} {} are under way already", match .reads {
    CostlyReads::Overlaps => "overlaps",
    CostlyReads::Lists => "lists and requests for users",
})]
pub struct TooMany {
    /// Of these reads.
    pub reads: CostlyReads,
    /// So many.
    pub max: usize,
}

impl ConcurrencyLimit {
    /// Allows `max` of `reads` at a time.
    #[must_use]
    pub fn new(reads: CostlyReads, max: usize) -> Self {
        Self { reads, max, permits: Arc::new(Semaphore::new(max)) }
    }

    /// Returns a permit for one read, which ends when the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when all permits are taken. Nobody waits for one: a queue of costly reads would only grow.
    pub fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| TooMany { reads: self.reads, max: self.max })
    }
}
