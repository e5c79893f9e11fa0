//! Permits to write large batches.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Estimator;
use crate::redis;
use crate::store::{self, Batch, Store, WriteOutcome};

/// A permit to write one large batch.
#[derive(Debug)]
pub struct BulkPermit {
    store: Store,
    _permit: OwnedSemaphorePermit,
}

impl BulkPermit {
    /// Writes `batch`, and returns the outcome of each of its visits.
    pub async fn write(self, batch: &Batch) -> WriteOutcome {
        let written = self.store.write_bulk(batch).await;
        self.store.metrics().visits.sampled_out(written.sampled_out());
        written
    }
}

impl Estimator {
    /// The limit on concurrent large batches. Two keep Redis busy.
    const MAX_BULK_WRITES: usize = 8;
    /// The limit if each waits for replicas. They share a connection, so the second also waits for the first.
    const MAX_REPLICATED_BULK_WRITES: usize = 2;

    /// Returns the permits of large batches to `store`.
    pub(super) fn bulk_permits(store: &Store) -> Arc<Semaphore> {
        let max = if store.acks().is_required() { Self::MAX_REPLICATED_BULK_WRITES } else { Self::MAX_BULK_WRITES };
        Arc::new(Semaphore::new(max))
    }

    /// Waits for a permit to write a large batch. [`Ingest`](crate::ingest::Ingest) makes such batches.
    ///
    /// # Errors
    ///
    /// [`redis::Error::Timeout`] if no permit is free in the time that Redis has for an answer.
    pub async fn acquire_bulk_permit(&self) -> Result<BulkPermit, store::Error> {
        let timeout = self.store.limits().answer;
        let Ok(permit) = tokio::time::timeout(timeout, Arc::clone(&self.bulk).acquire_owned()).await else {
            let error = store::Error::from(redis::Error::Timeout(timeout));
            self.store.log_error(&error);
            return Err(error);
        };
        Ok(BulkPermit { store: self.store.clone(), _permit: permit.expect("the semaphore is never closed") })
    }
}
