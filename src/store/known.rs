//! Whether segments are known: in an index, or with a history.

use super::history::KeyType;
use super::{Error, Store};

impl Store {
    /// Returns whether each of `names` is in the index of any partition or has a history. A key of another type is
    /// no history.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn are_known(&self, names: &[&str]) -> Result<Vec<bool>, Error> {
        let mut known = self.names_found(names).await?;
        let others: Vec<_> = (0..names.len()).filter(|index| !known[*index]).collect();
        let types = self.types_of(&others.iter().map(|index| names[*index]).collect::<Vec<_>>()).await?;
        for (index, key_type) in others.into_iter().zip(types) {
            known[index] = matches!(key_type, KeyType::List | KeyType::Stream);
        }
        Ok(known)
    }
}
