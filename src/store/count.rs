//! Counting the members of segments.

use ::redis::{Cmd, Value, cmd};
use futures_util::future::try_join_all;

use super::Error;
use super::layout::{Attempt, KnownLayout};
use super::{Partition, SegmentKey, Store};
use crate::domain::{Estimate, SegmentName, Timestamp};
use crate::redis::Request;
use crate::redis::{self, parse};
use crate::store::keys::scores_after;

/// Which members of a segment are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CountQuery {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// Members that were seen after this time.
    pub cutoff: Timestamp,
}

impl Store {
    /// Counts the members of each query, in all partitions concurrently. The count of a segment that keeps a sample is
    /// an estimate.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, for one of them or for all. Without an error, no member is missing.
    pub async fn counts(&self, queries: &[&CountQuery]) -> Result<Vec<Result<Estimate, Error>>, Error> {
        self.with_layout(|known| async move {
            let servers = self.group_by_server(known.layout.read()).await?;
            let counting = servers.into_iter().map(|partitions| self.counts_at(partitions, queries, &known));
            let mut sums: Vec<Result<Estimate, Error>> = vec![Ok(Estimate::default()); queries.len()];
            for counts in try_join_all(counting).await? {
                let Attempt::Committed(counts) = counts else { return Ok(Attempt::Stale) };
                // Each partition has a count for each query.
                let mut counts = counts.into_iter();
                while counts.len() > 0 {
                    for (sum, count) in sums.iter_mut().zip(counts.by_ref()) {
                        *sum = match (std::mem::replace(sum, Ok(Estimate::default())), count) {
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
        queries: &[&CountQuery],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Result<Estimate, Error>>>, Error> {
        if partitions.iter().any(|partition| partition.bound().is_some()) {
            return self.sampled_counts_at(partitions, queries, known).await;
        }
        let commands = partitions.iter().flat_map(|partition| {
            let key = SegmentKey { partition: *partition, level: None };
            let after = |query: &CountQuery| [scores_after(query.cutoff), "+inf".to_owned()];
            queries.iter().map(move |query| (partition.slot(), self.count_command(key, query, &after(query))))
        });
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads(partitions.iter().copied()));
        let [counts, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let exact = |count: Result<Value, redis::Error>| Ok(Estimate::exact(count.and_then(parse)?));
        Ok(Attempt::Committed(counts.into_iter().map(exact).collect()))
    }

    /// Returns the command that counts the members in `key` whose scores are within `range`.
    pub(super) fn count_command(&self, key: SegmentKey, query: &CountQuery, range: &[String; 2]) -> Cmd {
        let mut command = cmd("ZCOUNT");
        command.arg(self.key_names.segment(key, query.segment.as_str())).arg(range);
        command
    }
}
