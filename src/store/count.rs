//! Counting the members of segments.

use futures_util::future::try_join_all;

use super::Error;
use super::layout::{Attempt, KnownLayout};
use super::{Partition, Store};
use crate::domain::{SegmentName, Timestamp};
use crate::redis::Request;
use crate::redis::parse;
use crate::store::keys::scores_after;

impl Store {
    /// Counts the members of each segment that were seen after its cutoff, in all partitions concurrently.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, for one of them or for all. A count is never approximate.
    pub async fn counts(&self, queries: &[&(SegmentName<'_>, Timestamp)]) -> Result<Vec<Result<u64, Error>>, Error> {
        self.with_layout(|known| async move {
            let servers = self.group_by_server(known.layout.read()).await?;
            let counting = servers.into_iter().map(|partitions| self.counts_at(partitions, queries, &known));
            let mut sums: Vec<Result<u64, Error>> = vec![Ok(0); queries.len()];
            for counts in try_join_all(counting).await? {
                let Attempt::Committed(counts) = counts else { return Ok(Attempt::Stale) };
                // Each partition has a count for each query.
                let mut counts = counts.into_iter();
                while counts.len() > 0 {
                    for (sum, count) in sums.iter_mut().zip(counts.by_ref()) {
                        *sum = match (std::mem::replace(sum, Ok(0)), count) {
                            (Ok(sum), Ok(count)) => Ok(sum + count),
                            // A wrong type affects one key. Any other error affects Redis and takes precedence.
                            (Err(before), Err(error)) if error.is_outage() && !before.is_outage() => Err(error),
                            (Err(error), _) | (_, Err(error)) => Err(error),
                        };
                    }
                }
            }
            Ok(Attempt::Committed(sums))
        })
        .await
    }

    /// Returns the counts of each of `partitions`, which are on one server.
    async fn counts_at(
        &self,
        partitions: Vec<Partition>,
        queries: &[&(SegmentName<'_>, Timestamp)],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Result<u64, Error>>>, Error> {
        let commands = partitions.iter().flat_map(|partition| {
            let (key_names, slot) = (&self.key_names, partition.slot());
            queries.iter().map(move |(segment, cutoff)| {
                let mut command = redis::cmd("ZCOUNT");
                command.arg(key_names.segment(*partition, segment.as_str())).arg(scores_after(*cutoff)).arg("+inf");
                (slot, command)
            })
        });
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads(partitions.iter().copied()));
        let [counts, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        Ok(Attempt::Committed(counts.into_iter().map(|count| Ok(count.and_then(parse)?)).collect()))
    }
}
