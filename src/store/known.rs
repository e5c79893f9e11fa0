//! Whether segments are known: in an index, or with a history.

use futures_util::future::try_join_all;

use super::history::KeyType;
use super::{Error, Store};
use crate::redis::Slot;

impl Store {
    /// Returns whether each of `names` is in the index of any partition or has a history. A key of another type is
    /// no history.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn are_known(&self, names: &[&str]) -> Result<Vec<bool>, Error> {
        let mut known = self.names_found(names).await?;
        let others: Vec<usize> = (0..names.len()).filter(|index| !known[*index]).collect();
        let slot_of = |index: &usize| Slot::of_any_key(&self.key_names.history(names[*index]));
        let servers = self.client.group_by_server(others, slot_of).await?;
        let lookups = servers.into_iter().map(|indices| async move {
            let names: Vec<_> = indices.iter().map(|index| names[*index]).collect();
            let types = self.types_of(&names).await?;
            Ok::<_, Error>(indices.into_iter().zip(types))
        });
        for (index, key_type) in try_join_all(lookups).await?.into_iter().flatten() {
            known[index] = matches!(key_type, KeyType::List | KeyType::Stream);
        }
        Ok(known)
    }
}
