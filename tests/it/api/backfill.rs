//! A resharding that tests hold in its backfill phase.

use segment_estimator::domain::{Timestamp, Visit, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{Batch, KeySet, Layout, Partitions, Phase, Resharding, Store};
use tempfile::TempDir;

use crate::helpers::{Redis, binary, run, segment, visit};

/// Completes the resharding to 8 partitions.
#[track_caller]
pub fn complete_resharding(folder: &TempDir, redis: &Redis) {
    let output = run(binary(folder.path()).args(["repartition", "--to", "8", "--redis-url", &redis.url()]));
    assert!(output.status.success(), "{output:?}");
}

/// Resharding to 8 partitions in its backfill phase.
pub struct Backfill {
    pub store: Store,
    pub estimator: Estimator,
    pub layout: Layout,
    pub old: KeySet,
    pub new: KeySet,
}

impl Backfill {
    /// Begins the backfill of a data set in which `users` are in `sports`, seen at `now`.
    pub async fn begin(redis: &Redis, users: &[&str], now: Timestamp) -> Self {
        let store = redis.store();
        let estimator = Estimator::new(store.clone(), Window::parse("14d").unwrap());
        for user in users {
            estimator.record(visit(user, "sports", now), now).await.unwrap();
        }
        let before = store.propagate_layout().await.unwrap();
        let (old, new) = (before.keys(), before.keys().sibling(Partitions::parse("8").unwrap(), None));
        let layout =
            store.change_layout(&before, old, Some(Resharding { to: new, phase: Phase::Backfill })).await.unwrap();
        Self { store, estimator, layout, old, new }
    }

    /// Reads the members as the backfill does before it writes them.
    pub async fn read_page(&self) -> Batch {
        let mut batch = Batch::default();
        for partition in self.old.all() {
            for (user_id, seen_at) in self
                .store
                .members(partition.segment_keys().next().unwrap(), &segment("sports"), None)
                .await
                .unwrap()
                .members
            {
                batch.add(&Visit { user_id, segment: segment("sports"), seen_at });
            }
        }
        batch
    }

    pub async fn copy(&self, page: &Batch) {
        self.store.copy(&self.layout, self.new, page).await.unwrap();
    }
}
