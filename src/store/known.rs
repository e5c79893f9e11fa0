//! Whether segments are known: in an index, or with a history.

use ::redis::cmd;

use super::{Error, Store};
use crate::redis::{Request, Slot, parse};

impl Store {
    /// Returns whether each of `names` is in the index of any partition or has a history.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn are_known(&self, names: &[&str]) -> Result<Vec<bool>, Error> {
        let mut known = self.names_found(names).await?;
        let others: Vec<usize> = (0..names.len()).filter(|index| !known[*index]).collect();
        let key_of = |index: usize| self.key_names.history(names[index]);
        let slot_of = |index: &usize| Slot::of_any_key(&key_of(*index));
        for indices in self.client.group_by_server(others, slot_of).await? {
            let commands = indices.iter().map(|index| {
                let mut exists = cmd("EXISTS");
                exists.arg(key_of(*index));
                (slot_of(index), exists)
            });
            let answers = self.client.send(Request::each(commands)).await?.results();
            for (index, answer) in indices.into_iter().zip(answers) {
                known[index] = answer.and_then(parse::<u64>)? > 0;
            }
        }
        Ok(known)
    }
}
