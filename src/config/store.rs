//! The store that the settings describe.

use std::sync::Arc;

use super::Settings;
use crate::redis::{Client, Deployment};
use crate::store::Store;
use crate::telemetry::Metrics;

impl Settings {
    /// Opens the store on `deployment`: the Redis that is set, or the private one. The first request connects.
    ///
    /// The caller adds the window, and the requirements of [`Self::require_layout`]: the service has all of them, and a
    /// command may take the data set as it is.
    ///
    /// # Errors
    ///
    /// A line that names the setting if a file for the connection is unusable.
    pub fn open_store(&self, deployment: Deployment, metrics: Arc<Metrics>) -> Result<Store, String> {
        let client = Client::new(deployment, self.redis_limits(), metrics)?;
        let store = Store::new(client)
            .with_acks(self.acks())
            .with_key_prefix(self.redis_key_prefix.clone())
            .with_max_segments(self.max_segments as u64);
        Ok(if self.has_private_redis() { store.on_private_redis() } else { store })
    }

    /// Requires a data set with the partitions and the maximum number of members that are set. A new one gets them.
    #[must_use]
    pub fn require_layout(&self, store: Store) -> Store {
        store.with_partitions(self.partitions).with_max_members(self.max_members)
    }
}
