//! Counting the members of bounded segments.

use ::redis::Value;

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, Estimate, Level, Timestamp};
use crate::redis::{self, Request, parse};
use crate::store::keys::scores_after;
use crate::store::layout::{Attempt, KnownLayout};
use crate::store::{CountQuery, Error, Partition, SegmentKey, Store};

/// Members of a segment that have the same depth.
#[derive(Debug)]
struct Stratum {
    /// The first time at which they may have been seen last.
    from: Timestamp,
    /// The bounds of their scores, as arguments of a command.
    scores: [String; 2],
    depth: Depth,
}

impl Stratum {
    /// Returns the strata of the members that were seen after `cutoff`, of a segment of `depth`. While the depth falls,
    /// the members since have a lower one.
    fn all_after(cutoff: Timestamp, depth: SegmentDepth) -> Vec<Self> {
        const UNBOUNDED: &str = "+inf";
        let Some(since) = depth.falls_since().filter(|since| cutoff < *since) else {
            let scores = [scores_after(cutoff), UNBOUNDED.to_owned()];
            return vec![Self { from: cutoff, scores, depth: depth.at(cutoff) }];
        };
        let [before, after] = [scores_after(since), since.as_score().to_string()];
        vec![
            Self { from: cutoff, scores: [scores_after(cutoff), before], depth: depth.complete() },
            Self { from: since, scores: [after, UNBOUNDED.to_owned()], depth: depth.written() },
        ]
    }
}

/// The counts of a segment in a partition, which `depth` decides.
#[derive(Debug)]
struct CountPlan<'a> {
    partition: Partition,
    /// The queries, which are of one segment.
    queries: &'a [&'a CountQuery],
    /// `None` if nothing is known: then the depth must be read first.
    depth: Option<SegmentDepth>,
    /// The strata of each query.
    strata: Vec<Vec<Stratum>>,
}

impl<'a> CountPlan<'a> {
    fn new(partition: Partition, queries: &'a [&'a CountQuery], depth: Option<SegmentDepth>) -> Self {
        let all_after =
            |query: &&CountQuery| depth.map_or_else(Vec::new, |depth| Stratum::all_after(query.cutoff, depth));
        Self { partition, queries, depth, strata: queries.iter().map(all_after).collect() }
    }

    /// Whether `depth`, which was read behind the counts, needs no other ones.
    fn fits(&self, depth: SegmentDepth) -> bool {
        let has_levels = |stratum: &Stratum| depth.at(stratum.from) >= stratum.depth;
        self.depth.is_some_and(|planned| planned.falls_since() == depth.falls_since())
            && self.strata.iter().flatten().all(has_levels)
    }

    /// Returns the ranges of scores that are counted, and their keys. Those of one key follow each other, so that a
    /// member that is seen again in the meantime is hardly ever counted in two of them.
    fn counts(&self) -> impl Iterator<Item = (SegmentKey, &CountQuery, &[String; 2])> {
        self.queries.iter().zip(&self.strata).flat_map(move |(query, strata)| {
            Level::all().flat_map(move |level| {
                let key = SegmentKey { partition: self.partition, level: Some(level) };
                let counted = strata.iter().filter(move |stratum| stratum.depth.keeps(level));
                counted.map(move |stratum| (key, *query, &stratum.scores))
            })
        })
    }

    /// Takes the answers to [`Self::counts`] and returns the estimate of each query. `depth` was read behind them.
    fn estimates(
        &self,
        answers: &mut impl Iterator<Item = Result<Value, redis::Error>>,
        depth: SegmentDepth,
    ) -> Vec<Result<Estimate, Error>> {
        self.strata.iter().map(|strata| estimate(strata, answers, depth)).collect()
    }
}

/// Takes the answers to the counts of `strata` and returns their sum. `depth` was read behind them.
///
/// A raise has deleted levels below the new depth, so the levels from there on are counted. If the depth is lower than
/// that of a stratum, the levels that were counted are kept as well, and are a smaller sample.
fn estimate(
    strata: &[Stratum],
    answers: &mut impl Iterator<Item = Result<Value, redis::Error>>,
    depth: SegmentDepth,
) -> Result<Estimate, Error> {
    let depths: Vec<_> = strata.iter().map(|stratum| stratum.depth.max(depth.at(stratum.from))).collect();
    let (mut members, mut failure) = (vec![0_u64; strata.len()], None);
    for level in Level::all() {
        for (index, _) in strata.iter().enumerate().filter(|(_, stratum)| stratum.depth.keeps(level)) {
            let count = answers.next().expect("each count has an answer").and_then(parse::<u64>);
            match count {
                Ok(count) if depths[index].keeps(level) => members[index] += count,
                Err(error) if depths[index].keeps(level) => failure = failure.or(Some(error)),
                _ => {}
            }
        }
    }
    let estimates = members.into_iter().zip(depths).map(|(members, depth)| Estimate::sampled(members, depth));
    failure.map_or_else(|| Ok(estimates.sum()), |error| Err(error.into()))
}

impl Store {
    /// Returns the estimates of each of `partitions`, whose segments are bounded and which are on one server.
    ///
    /// Levels that nobody writes need not be counted, so the known depths decide what is counted. The depths are read
    /// again behind the members, since a raise in between deletes levels that its depth leaves out. If they show that
    /// the knowledge was too old, the members are counted once more.
    pub(in crate::store) async fn sampled_counts_at(
        &self,
        partitions: Vec<Partition>,
        queries: &[&CountQuery],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Result<Estimate, Error>>>, Error> {
        self.watch_depths(known);
        let mut plans = Vec::with_capacity(partitions.len() * queries.len());
        for partition in partitions {
            let latest = self.depths.latest(partition);
            let depth_of =
                |segment: &str| latest.as_ref().map(|depths| depths.get(segment).copied().unwrap_or_default());
            let by_segment = queries.chunk_by(|one, next| one.segment == next.segment);
            plans.extend(
                by_segment.map(|queries| CountPlan::new(partition, queries, depth_of(queries[0].segment.as_str()))),
            );
        }
        let Attempt::Committed(mut answers) = self.run_plans(&plans, known).await? else { return Ok(Attempt::Stale) };
        let (mut repeated, mut repetitions) = (Vec::new(), Vec::new());
        for (index, (plan, (depth, _))) in plans.iter().zip(&answers).enumerate() {
            if let Some(depth) = depth.filter(|depth| !plan.fits(*depth)) {
                repeated.push(index);
                repetitions.push(CountPlan::new(plan.partition, plan.queries, Some(depth)));
            }
        }
        if !repeated.is_empty() {
            let Attempt::Committed(again) = self.run_plans(&repetitions, known).await? else {
                return Ok(Attempt::Stale);
            };
            repeated.into_iter().zip(again).for_each(|(index, answer)| answers[index] = answer);
        }
        Ok(Attempt::Committed(answers.into_iter().flat_map(|(_, estimates)| estimates).collect()))
    }

    /// Returns for each of `plans` the depth that was read behind its counts, and the estimates.
    async fn run_plans(
        &self,
        plans: &[CountPlan<'_>],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<(Option<SegmentDepth>, Vec<Result<Estimate, Error>>)>>, Error> {
        let counts = plans.iter().flat_map(|plan| {
            let slot = plan.partition.slot();
            plan.counts().map(move |(key, query, scores)| (slot, self.count_command(key, query, scores)))
        });
        let depths = plans.iter().map(|plan| self.depth_read(plan.partition, &plan.queries[0].segment));
        let mut partitions: Vec<_> = plans.iter().map(|plan| plan.partition).collect();
        partitions.dedup();
        let request =
            Request::each(counts).and_then_read(depths).and_then_read(self.key_names.layout_reads(partitions));
        let [counts, depths, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let mut counts = counts.into_iter();
        let answers = plans.iter().zip(depths).map(|(plan, depth)| {
            let depth = self.parse_depth(plan.partition, depth);
            let estimates = plan.estimates(&mut counts, depth.as_ref().copied().unwrap_or_default());
            match depth {
                Ok(depth) => (Some(depth), estimates),
                Err(error) => (None, vec![Err(error); estimates.len()]),
            }
        });
        Ok(Attempt::Committed(answers.collect()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::SegmentName;

    fn depth(text: &str) -> SegmentDepth {
        SegmentDepth::parse(text.as_bytes()).unwrap()
    }

    /// Counts ten members in each range of each level, by a plan for members after the time 100.
    fn estimate_of(planned: &str, read: &str) -> (bool, u64) {
        let partition = Partition::new(None, 0, Some(1_024));
        let segment = SegmentName::parse("a").unwrap();
        let query = CountQuery { segment, cutoff: Timestamp::from_millis(100_000) };
        let queries = [&query];
        let plan = CountPlan::new(partition, &queries, Some(depth(planned)));
        let mut answers = vec![Ok(Value::Int(10)); plan.counts().count()].into_iter();
        let estimates = plan.estimates(&mut answers, depth(read));
        assert_eq!(answers.len(), 0, "each answer is taken");
        (plan.fits(depth(read)), estimates.into_iter().next().unwrap().unwrap().count())
    }

    #[rstest]
    #[case::steady("22", "22", true, &[(3, 22)])]
    #[case::raised("22", "23", true, &[(2, 23)])]
    #[case::deleted("22", "0", false, &[(3, 22)])]
    #[case::fall_is_new("22", "22>20@200", false, &[(3, 22)])]
    #[case::falling("22>20@200", "22>20@200", true, &[(3, 22), (5, 20)])]
    #[case::fell_before_the_window("22>20@100", "22>20@100", true, &[(5, 20)])]
    #[case::raised_while_falling("22>20@200", "22>21@200", true, &[(3, 22), (4, 21)])]
    #[case::raised_to_its_end("22>20@200", "22", false, &[(3, 22), (3, 22)])]
    #[case::raised_beyond("22>20@200", "23", false, &[(2, 23), (2, 23)])]
    #[case::settled("22>20@200", "20", false, &[(3, 22), (5, 20)])]
    #[case::fell_again("22>20@200", "22>18@300", false, &[(3, 22), (3, 22)])]
    #[case::marked("22>20@200", "22>0@300!", false, &[(3, 22), (3, 22)])]
    fn estimate_is_by_the_depth_that_was_read_last(
        #[case] planned: &str,
        #[case] read: &str,
        #[case] fits: bool,
        #[case] levels_and_depths: &[(u64, u8)],
    ) {
        let count = levels_and_depths.iter().map(|(levels, depth)| (10 * levels) << depth).sum();
        assert_eq!(estimate_of(planned, read), (fits, count));
    }
}
