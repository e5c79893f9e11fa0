//! Group commit: single visits that arrive together, and whose users are in the same partition, are written in one round trip.
//! Large batches have their own way.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::group_commit::Rounds;
use crate::domain::Visit;
use crate::redis;
use crate::store::{self, Batch, Partitions, Store, WriteOutcome, lane_of};

/// Writes visits. Cheap to clone; clones share the round trips.
#[derive(Debug, Clone)]
pub struct Writer {
    /// One for each partition that there is: a server that doesn't answer stops the visits to its own alone.
    lanes: Arc<[OnceLock<Rounds<Visit<'static>, ()>>]>,
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

    /// How many may wait in each lane, however many share out what may wait in all.
    const LEAST: usize = 100;

    /// A writer to `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let lanes = (0..Partitions::MOST).map(|_| OnceLock::new()).collect();
        let bulk_writes = if store.acks().is_asked() { Self::REPLICATED_BULK_WRITES } else { Self::BULK_WRITES };
        Self { lanes, store, bulk: Arc::new(Semaphore::new(bulk_writes)) }
    }

    /// Writes `visit`, and returns when Redis has acknowledged it.
    ///
    /// # Errors
    ///
    /// When too many wait already, and when Redis didn't acknowledge this visit, which may have been written all the same.
    pub async fn write(&self, visit: Visit<'static>) -> Result<(), store::Error> {
        // While a move to other partitions is under way, or before they are known, some share a lane that need not.
        let partitions = self.store.partitions().unwrap_or(Partitions::ONE);
        let lane = self.lanes[lane_of(&visit.user_id, partitions)].get_or_init(|| {
            let metrics = self.store.metrics().visit_rounds.clone();
            Rounds::new(self.store.clone(), metrics, write)
        });
        let most = self.store.limits().waiting;
        lane.ask(visit, most.div_ceil(partitions.count()).max(Self::LEAST.min(most))).await
    }

    /// How many visits wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lanes.iter().filter_map(OnceLock::get).map(Rounds::waiting).sum()
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
                let error = store::Error::from(redis::Error::Timeout(limit));
                self.store.note_failure(&error);
                Err(error)
            }
        }
    }
}

impl BulkWrite {
    /// Writes `batch`, and says what became of each of its visits.
    pub async fn write(self, batch: &Batch) -> WriteOutcome {
        self.store.write_bulk(batch).await
    }
}

/// One round trip: a result for each of `visits`.
async fn write(store: Store, visits: Vec<Visit<'static>>) -> Vec<Result<(), store::Error>> {
    let mut batch = Batch::default();
    visits.iter().for_each(|visit| batch.add(visit));
    let written = store.write(&batch).await;
    (0..visits.len()).map(|place| written.result(place).map_err(Clone::clone)).collect()
}
