//! Counting the members of bounded segments.

use ::redis::Value;

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, Estimate, Level, Timestamp};
use crate::redis::{self, Request, parse};
use crate::store::keys::scores_after;
use crate::store::layout::{Attempt, KnownLayout};
use crate::store::{CountQuery, Error, Partition, SegmentKey, Store};

/// Members of a segment that have the same depth.
struct Stratum {
    /// The first time at which they may have been seen last.
    from: Timestamp,
    /// The bounds of their scores, as arguments of a command.
    scores: [String; 2],
    depth: Depth,
}

impl Stratum {
    /// Returns the parts of the members that were seen after `cutoff`, of a segment of `depth`. While the depth falls,
    /// the members since have a lower one.
    fn all_after(cutoff: Timestamp, depth: SegmentDepth) -> Vec<Self> {
        const UNBOUNDED: &str = "+inf";
        let Some(since) = depth.falls_since().filter(|since| cutoff < *since) else {
            let scores = [scores_after(cutoff), UNBOUNDED.to_owned()];
            return vec![Self { from: cutoff, scores, depth: depth.written() }];
        };
        let [before, after] = [scores_after(since), since.as_score().to_string()];
        vec![
            Self { from: cutoff, scores: [scores_after(cutoff), before], depth: depth.complete() },
            Self { from: since, scores: [after, UNBOUNDED.to_owned()], depth: depth.written() },
        ]
    }
}

/// The counts of a query in a partition.
struct CountPlan<'a> {
    partition: Partition,
    query: &'a CountQuery,
    /// The depth as the instance knows it: levels that nobody writes need not be counted. The depth that is read last
    /// decides whether this was right.
    known_depth: SegmentDepth,
    strata: Vec<Stratum>,
}

impl CountPlan<'_> {
    /// Returns the bounds of each count, and its key.
    fn counts(&self) -> impl Iterator<Item = (SegmentKey, &[String; 2])> {
        self.strata.iter().flat_map(|stratum| {
            let key = |level| SegmentKey { partition: self.partition, level: Some(level) };
            stratum.depth.levels().map(move |level| (key(level), &stratum.scores))
        })
    }

    /// Returns the estimate from `counts`, one for each of [`Self::counts`], of a segment of `depth`; `None` if they
    /// lack a level.
    fn estimate(
        &self,
        counts: &mut impl Iterator<Item = Result<Value, redis::Error>>,
        depth: SegmentDepth,
    ) -> Option<Result<Estimate, Error>> {
        // If another fall was recorded in the meantime, nothing is known of the members since.
        let is_known = depth.falls_since() == self.known_depth.falls_since();
        let depth_of = |stratum: &Stratum| if is_known { depth.at(stratum.from) } else { depth.complete() };
        let (mut sum, mut is_complete) = (Ok(Estimate::default()), true);
        for stratum in &self.strata {
            let (depth, levels) = (depth_of(stratum), stratum.depth.levels());
            is_complete &= depth >= stratum.depth;
            let counts: Vec<_> = counts.by_ref().take(levels.len()).collect();
            let count = estimate(levels.zip(counts), depth);
            sum = sum.and_then(|sum| Ok(sum + count?));
        }
        is_complete.then_some(sum)
    }
}

impl Store {
    /// Returns the estimates of each of `partitions`, whose segments are bounded and which are on one server. The depths
    /// are read behind the members: a raise in between deletes levels that its depth leaves out.
    pub(in crate::store) async fn sampled_counts_at(
        &self,
        partitions: Vec<Partition>,
        queries: &[&CountQuery],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Result<Estimate, Error>>>, Error> {
        self.watch_depths(known);
        let mut plans = Vec::with_capacity(partitions.len() * queries.len());
        for &partition in &partitions {
            let latest = self.depths.latest(partition);
            plans.extend(queries.iter().map(|&query| {
                let known_depth = latest.as_deref().and_then(|depths| depths.get(query.segment.as_str()).copied());
                let known_depth = known_depth.unwrap_or_default();
                CountPlan { partition, query, known_depth, strata: Stratum::all_after(query.cutoff, known_depth) }
            }));
        }
        let counts = plans.iter().flat_map(|plan| {
            let slot = plan.partition.slot();
            plan.counts().map(move |(key, scores)| (slot, self.count_command(key, plan.query, scores)))
        });
        let depths = plans.iter().map(|plan| self.depth_read(plan.partition, &plan.query.segment));
        let layouts = self.key_names.layout_reads(partitions);
        let request = Request::each(counts).and_then_read(depths).and_then_read(layouts);
        let [counts, depths, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let mut counts = counts.into_iter();
        let (mut estimates, mut is_stale) = (Vec::with_capacity(plans.len()), false);
        for (plan, depth) in plans.iter().zip(depths) {
            let depth = self.parse_depth(plan.partition, depth);
            let estimate = plan.estimate(&mut counts, depth.as_ref().copied().unwrap_or_default());
            match (depth, estimate) {
                (Err(error), _) => estimates.push(Err(error)),
                (Ok(_), Some(estimate)) => estimates.push(estimate),
                (Ok(_), None) => {
                    // The next attempt counts all levels of the partition.
                    self.depths.forget(plan.partition);
                    is_stale = true;
                }
            }
        }
        Ok(if is_stale { Attempt::Stale } else { Attempt::Committed(estimates) })
    }
}

/// Returns the estimate from the `counts` of each level, of a sample of `depth`.
fn estimate(
    counts: impl Iterator<Item = (Level, Result<Value, redis::Error>)>,
    depth: Depth,
) -> Result<Estimate, Error> {
    let mut members = 0;
    for (level, count) in counts {
        if depth.keeps(level) {
            members += count.and_then(parse::<u64>)?;
        }
    }
    Ok(Estimate::sampled(members, depth))
}
