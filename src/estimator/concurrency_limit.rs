//! The limit on concurrent reads of a kind.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::estimator::error::{CostlyReads, TooMany};

/// Limits the concurrent reads of a kind. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    reads: CostlyReads,
    max: usize,
    permits: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// Allows `max` concurrent `reads`.
    #[must_use]
    pub fn new(reads: CostlyReads, max: usize) -> Self {
        Self { reads, max, permits: Arc::new(Semaphore::new(max)) }
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
}
