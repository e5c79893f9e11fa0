//! Counting the members of segments.

use ::redis::{Cmd, Value, cmd};
use futures_util::future::try_join_all;

use super::Error;
use super::layout::{Attempt, KnownLayout};
use super::sampling::depths::written;
use super::{Partition, SegmentKey, Store};
use crate::domain::{Depth, Estimate, Level, SegmentName, Timestamp};
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
    /// The earliest cutoff of all counts that this one is compared with. A segment that keeps a sample may have one of
    /// a higher depth for earlier members, and counts are comparable only if they use the same one.
    pub earliest_cutoff: Timestamp,
}

impl CountQuery {
    /// Returns a query for the members of `segment` that were seen after `cutoff`.
    #[must_use]
    pub fn new(segment: SegmentName<'static>, cutoff: Timestamp) -> Self {
        Self { segment, cutoff, earliest_cutoff: cutoff }
    }
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
            queries.iter().map(move |query| (partition.slot(), self.count_command(key, query)))
        });
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads(partitions.iter().copied()));
        let [counts, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let exact = |count: Result<Value, redis::Error>| Ok(Estimate::exact(count.and_then(parse)?));
        Ok(Attempt::Committed(counts.into_iter().map(exact).collect()))
    }

    /// Returns the estimates of each of `partitions`, whose segments are bounded. The depths are read behind the
    /// members: a raise in between deletes levels that its depth leaves out.
    async fn sampled_counts_at(
        &self,
        partitions: Vec<Partition>,
        queries: &[&CountQuery],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Result<Estimate, Error>>>, Error> {
        self.watch_depths(known);
        // Levels that nobody writes need not be counted. The depth that is read last decides whether this was right.
        let first_levels: Vec<_> = partitions
            .iter()
            .flat_map(|partition| {
                let latest = self.depths.latest(*partition);
                queries.iter().map(move |query| written(latest.as_deref(), query.segment.as_str()))
            })
            .collect();
        let each = || partitions.iter().flat_map(|partition| queries.iter().map(move |query| (*partition, *query)));
        let counts = each().zip(&first_levels).flat_map(|((partition, query), first)| {
            let keys = first.levels().map(move |level| SegmentKey { partition, level: Some(level) });
            keys.map(move |key| (partition.slot(), self.count_command(key, query)))
        });
        let depths = each().map(|(partition, query)| self.depth_read(partition, &query.segment));
        let layouts = self.key_names.layout_reads(partitions.iter().copied());
        let request = Request::each(counts).and_then_read(depths).and_then_read(layouts);
        let [counts, depths, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let mut counts = counts.into_iter();
        let (mut estimates, mut is_stale) = (Vec::with_capacity(depths.len()), false);
        for (((partition, query), first), depth) in each().zip(&first_levels).zip(depths) {
            let kept: Vec<_> = counts.by_ref().take(first.levels().len()).collect();
            let estimate = match self.parse_depth(partition, depth) {
                Ok(depth) if depth.written() < *first => {
                    // The next attempt counts all levels of the partition.
                    self.depths.forget(partition);
                    is_stale = true;
                    continue;
                }
                Ok(depth) => estimate(first.levels().zip(kept), depth.at(query.earliest_cutoff)),
                Err(error) => Err(error),
            };
            estimates.push(estimate);
        }
        Ok(if is_stale { Attempt::Stale } else { Attempt::Committed(estimates) })
    }

    fn count_command(&self, key: SegmentKey, query: &CountQuery) -> Cmd {
        let mut command = cmd("ZCOUNT");
        command.arg(self.key_names.segment(key, query.segment.as_str())).arg(scores_after(query.cutoff)).arg("+inf");
        command
    }
}

/// Returns the estimate from the `kept` members of each level, of a sample of `depth`.
fn estimate(kept: impl Iterator<Item = (Level, Result<Value, redis::Error>)>, depth: Depth) -> Result<Estimate, Error> {
    let mut members = 0;
    for (level, count) in kept {
        if depth.keeps(level) {
            members += count.and_then(parse::<u64>)?;
        }
    }
    Ok(Estimate::sampled(members, depth))
}
