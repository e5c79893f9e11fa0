//! Group commit: single visits that arrive together are written in one round trip. Large batches have their own way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rounds::Rounds;
use crate::segment::Visit;
use crate::store::{self, Batch, Store};

/// Writes visits. Cheap to clone; clones share the round trips.
#[derive(Debug, Clone)]
pub struct Writer {
    singles: Rounds<Visit<'static>, ()>,
    store: Store,
    bulk: Arc<Semaphore>,
}

/// Leave to write one large batch. Few are given at a time.
#[derive(Debug)]
pub struct BulkWrite {
    store: Store,
    _permit: OwnedSemaphorePermit,
}

impl Writer {
    /// Large batches that are under way at once, whoever sends them. Redis is busy with two.
    const BULK_WRITES: usize = 8;
    /// The same where each waits for replicas: on one connection, so that the second also waits for the first.
    const REPLICATED_BULK_WRITES: usize = 2;

    /// A writer to `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let metrics = store.metrics().visit_rounds.clone();
        let singles = Rounds::new(store.clone(), metrics, write);
        let bulk_writes = if store.acks().is_asked() { Self::REPLICATED_BULK_WRITES } else { Self::BULK_WRITES };
        Self { singles, store, bulk: Arc::new(Semaphore::new(bulk_writes)) }
    }

    /// Writes `visit`, and returns when Redis has acknowledged it.
    ///
    /// # Errors
    ///
    /// When too many wait already, and when Redis didn't acknowledge this visit, which may have been written all the same.
    pub async fn write(&self, visit: Visit<'static>) -> Result<(), store::Error> {
        self.singles.ask(visit).await
    }

    /// Has the number of visits that wait now measured.
    pub fn measure_waiting(&self) {
        self.singles.measure_waiting();
    }

    /// Waits for leave to write a large batch.
    ///
    /// # Errors
    ///
    /// When the batches before it take as long as Redis may take for an answer.
    pub async fn bulk_write(&self) -> Result<BulkWrite, store::Error> {
        let limit = self.store.limits().answer;
        match tokio::time::timeout(limit, Arc::clone(&self.bulk).acquire_owned()).await {
            Ok(permit) => {
                let permit = permit.expect("nobody closes the semaphore");
                Ok(BulkWrite { store: self.store.clone(), _permit: permit })
            }
            Err(_) => {
                let error = store::Error::Timeout(limit);
                self.store.note_failure(&error);
                Err(error)
            }
        }
    }
}

impl BulkWrite {
    /// Writes `batch`: a result for each of its slots.
    ///
    /// # Errors
    ///
    /// When Redis acknowledged nothing. Any of the visits may have been written all the same.
    pub async fn write(self, batch: Batch) -> Result<Vec<Result<(), store::Error>>, store::Error> {
        self.store.write_bulk(batch).await
    }
}

/// One round trip: a result for each of `visits`.
async fn write(store: Store, visits: Vec<Visit<'static>>) -> Vec<Result<(), store::Error>> {
    let mut batch = Batch::default();
    let slots: Vec<_> = visits.iter().map(|visit| batch.add(visit)).collect();
    match store.write(batch).await {
        Ok(results) => slots.into_iter().map(|slot| results[slot].clone()).collect(),
        Err(error) => vec![Err(error); slots.len()],
    }
}
