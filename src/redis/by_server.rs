//! Sending commands on keys of several servers.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue};

use super::request::Request;
use super::{Client, Error, Slot};

impl Client {
    /// Groups `items` by server, where `slot_of` returns the slot of each.
    ///
    /// # Errors
    ///
    /// As [`Self::primaries`].
    pub(crate) async fn group_by_server<T>(
        &self,
        items: Vec<T>,
        slot_of: impl Fn(&T) -> Slot,
    ) -> Result<Vec<Vec<T>>, Error> {
        if !self.is_cluster() {
            return Ok(if items.is_empty() { Vec::new() } else { vec![items] });
        }
        let primaries = self.primaries_of(items.iter().map(slot_of).collect()).await?;
        let mut servers: BTreeMap<usize, Vec<T>> = BTreeMap::new();
        for (primary, item) in primaries.into_iter().zip(items) {
            servers.entry(primary).or_default().push(item);
        }
        Ok(servers.into_values().collect())
    }

    /// Sends `commands` to the servers of their keys, in one request for each server, concurrently. `request_of` makes
    /// the request of a server's commands. Returns a result for each command, in the order of the commands.
    ///
    /// # Errors
    ///
    /// As [`Self::primaries`] and [`Self::send`].
    pub(crate) async fn send_by_server<T: FromRedisValue>(
        &self,
        commands: impl IntoIterator<Item = (Slot, Cmd)>,
        request_of: impl Fn(Vec<(Slot, Cmd)>) -> Request,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let commands = commands.into_iter().enumerate().collect();
        let requests = self.group_by_server(commands, |(_, (slot, _))| *slot).await?.into_iter().map(|commands| {
            let (indices, commands): (Vec<usize>, Vec<_>) = commands.into_iter().unzip();
            let request = request_of(commands);
            async move { Ok::<_, Error>(indices.into_iter().zip(self.send(request).await?.each())) }
        });
        let mut results: Vec<_> = try_join_all(requests).await?.into_iter().flatten().collect();
        results.sort_unstable_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}
