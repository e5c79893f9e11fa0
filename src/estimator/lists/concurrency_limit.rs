//! The limit on concurrent walks over all segments.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::estimator::error::{CostlyReads, TooMany};

/// Limits the concurrent lists. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit {
    max: usize,
    permits: Arc<Semaphore>,
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
