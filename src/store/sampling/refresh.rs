//! Reading the depths of segments every second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::depths::Depths;
use crate::store::layout::KnownLayout;
use crate::store::{Error, Partition, Store};

impl Store {
    /// How long an instance may leave out visits because of a depth that it has read.
    pub const DEPTHS_MAX_AGE: Duration = Depths::MAX_AGE;

    /// Begins to read the depths of the segments every second, if they are bounded and this hasn't begun. It ends with
    /// the last clone of the store.
    pub(in crate::store) fn watch_depths(&self, known: &KnownLayout) {
        if known.layout.written().all(|keys| keys.max_members().is_none()) || !self.depths.begin_watch() {
            return;
        }
        let depths = Arc::downgrade(&self.depths);
        // The task holds no reference to the depths while it sleeps.
        let store = Self { depths: Arc::default(), ..self.clone() };
        tokio::spawn(async move {
            while let Some(depths) = depths.upgrade() {
                Self { depths, ..store.clone() }.spawn_reads();
                tokio::time::sleep(Depths::REFRESH_INTERVAL).await;
            }
        });
    }

    /// Begins to read the depths of all partitions. A server that doesn't answer delays its own partitions alone.
    fn spawn_reads(self) {
        tokio::spawn(async move {
            let Ok(known) = self.known_layout().await else { return };
            let bounded = known.layout.written().filter(|keys| keys.max_members().is_some());
            let partitions = self.depths.begin_reads(bounded.flat_map(|keys| keys.all()));
            let servers = self.client.group_by_server(partitions.clone(), |partition| partition.slot()).await;
            let Ok(servers) = servers else { return self.depths.end_reads(&partitions) };
            for partitions in servers {
                let (store, known) = (self.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    // If it fails, the client has logged it, and visits are written until the next read.
                    let _ = store.read_depths(&partitions, &known).await;
                    store.depths.end_reads(&partitions);
                });
            }
        });
    }

    /// Reads the depths of all segments in `partitions`, which are on one server.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(in crate::store) async fn read_depths(
        &self,
        partitions: &[Partition],
        known: &KnownLayout,
    ) -> Result<(), Error> {
        let read_at = Instant::now();
        let reads = partitions.iter().map(|partition| self.depths_read(*partition));
        // With a wait for replicas, which have by then what the depths follow from.
        let reply = self.batches.send(self.writes_to(partitions, reads)).await?;
        reply.replicated.clone()?;
        let [depths, _, layouts] = reply.into_steps();
        for ((partition, depths), layout) in partitions.iter().zip(depths).zip(layouts) {
            // Another program may have the key. Its fields are no depths, and visits are written.
            let Ok(depths) = self.parse_depths(*partition, depths) else { continue };
            if known.is_confirmed_by(&layout?) {
                let by_name = depths.filter_map(|(name, depth)| Some((name.into(), depth?)));
                self.depths.replace(*partition, by_name.collect(), read_at);
            }
        }
        Ok(())
    }
}
