//! The members and the depth of a bounded segment, as a raise or a fall needs them.

use ::redis::{Pipeline, Value};

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, Level};
use crate::redis::{self, Request, parse};
use crate::store::{Error, Partition, Store};

/// The members and the depth of a bounded segment in a partition.
#[derive(Debug)]
pub(super) struct SegmentSample {
    /// The number of members of each level, expired or not; `None` if its key has another type.
    pub(super) members: Vec<Option<u64>>,
    pub(super) depth: SegmentDepth,
}

impl SegmentSample {
    /// Returns the number of members from the level `depth` on.
    pub(super) fn members_from(&self, depth: Depth) -> u64 {
        self.members[depth.number().into()..].iter().flatten().sum()
    }

    /// Returns the lowest depth at which there are at most `bound` members. It is not less than the present one.
    pub(super) fn depth_within(&self, bound: u32) -> Depth {
        let deeper = self.depth.written().levels().filter_map(|level| Depth::from_number(level.number()));
        let mut within = deeper.filter(|depth| self.members_from(*depth) <= bound.into());
        within.next().unwrap_or(Depth::MAX)
    }

    /// Returns the levels below `depth` that have members.
    pub(super) fn levels_below(&self, depth: Depth) -> impl Iterator<Item = Level> {
        let has_members = |level: &Level| self.members[usize::from(level.number())].is_some_and(|members| members > 0);
        depth.levels_below().filter(has_members)
    }
}

impl Store {
    /// Returns the members and the depth of the bounded segment `name` in `partition`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::ForeignKey`] if the depth belongs to another program.
    pub(super) async fn segment_sample(&self, partition: Partition, name: &str) -> Result<SegmentSample, Error> {
        self.segment_samples(partition, &[name]).await?.pop().expect("each name has a sample")
    }

    /// Returns the members and the depth of each of the bounded segments `names` in `partition`, in one round trip.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, for one of them or for all. [`Error::ForeignKey`] if a depth belongs to
    /// another program.
    pub(super) async fn segment_samples(
        &self,
        partition: Partition,
        names: &[&str],
    ) -> Result<Vec<Result<SegmentSample, Error>>, Error> {
        let commands = partition.segment_keys().len() + 1;
        let mut pipeline = Pipeline::with_capacity(names.len() * commands);
        for name in names {
            for key in partition.segment_keys() {
                pipeline.cmd("ZCARD").arg(self.key_names.segment(key, name));
            }
            pipeline.cmd("HGET").arg(self.key_names.depths(partition)).arg(*name);
        }
        let mut answers = self.client.send(Request::new(partition.slot(), pipeline)).await?.results().into_iter();
        let samples =
            names.iter().map(|_| self.parse_segment_sample(partition, answers.by_ref().take(commands).collect()));
        Ok(samples.collect())
    }

    /// Parses the sizes of all levels and, behind them, the depth.
    fn parse_segment_sample(
        &self,
        partition: Partition,
        mut answers: Vec<Result<Value, redis::Error>>,
    ) -> Result<SegmentSample, Error> {
        let depth = answers.pop().expect("each command has an answer");
        let depth = self.parse_depth(partition, depth)?;
        let members = answers.into_iter().map(|members| match members.and_then(parse::<u64>) {
            Err(error) if error.is_wrong_type() => Ok(None),
            members => Ok::<_, Error>(Some(members?)),
        });
        Ok(SegmentSample { members: members.collect::<Result<_, _>>()?, depth })
    }

    /// Parses the answer to a read of a depth in `partition`.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignKey`] if it belongs to another program. Another [`Error`] if Redis refused the command.
    pub(in crate::store) fn parse_depth(
        &self,
        partition: Partition,
        answer: Result<Value, redis::Error>,
    ) -> Result<SegmentDepth, Error> {
        let foreign = || self.foreign_key(self.key_names.depths(partition));
        match answer.and_then(parse::<Option<Vec<u8>>>) {
            Ok(None) => Ok(SegmentDepth::default()),
            Ok(Some(text)) => SegmentDepth::parse(&text).ok_or_else(foreign),
            Err(error) if error.is_wrong_type() => Err(foreign()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }

    #[test]
    fn depth_within_is_the_lowest_that_fits() {
        let mut members = vec![Some(0); Level::all().len()];
        for (level, of_level) in members.iter_mut().enumerate().take(10) {
            *of_level = Some(512 >> level);
        }
        let at = |depth| SegmentSample { members: members.clone(), depth: SegmentDepth::steady(depth) };
        assert_eq!(at(Depth::ZERO).members_from(Depth::ZERO), 1_023);
        assert_eq!(at(Depth::ZERO).depth_within(1_023), Depth::ZERO);
        assert_eq!(at(Depth::ZERO).depth_within(1_022), depth(1));
        assert_eq!(at(Depth::ZERO).depth_within(64), depth(4));
        assert_eq!(at(depth(6)).depth_within(64), depth(6));
        assert_eq!(at(Depth::ZERO).levels_below(depth(3)).count(), 3);
    }
}
