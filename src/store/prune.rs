//! Pruning: removes expired members in slices, and names of empty segments from the index.
//!
//! Each removal compares the partition's copy of the layout record with the prune's, in the same atomic step. If the
//! window of the data set was extended in the meantime, nothing is removed.

use ::redis::{Pipeline, pipe};

use super::Error;
use super::{Layout, Partition, SegmentKey, Store};
use crate::domain::{SegmentName, Timestamp};
use crate::redis::Request;
use crate::redis::parse;

/// The numbers of expired and of all members of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Members seen at or before the cutoff.
    pub expired: u64,
    /// All members.
    pub members: u64,
}

impl std::ops::Add for MemberCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { expired: self.expired + other.expired, members: self.members + other.members }
    }
}

impl std::iter::Sum for MemberCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), std::ops::Add::add)
    }
}

/// The result of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceOutcome {
    /// The number of members removed.
    pub removed: u64,
    /// Whether no expired member is left, or none can be removed at the moment.
    pub is_done: bool,
}

/// Removes the members scored `ARGV[2]` or less from `KEYS[2]` and the following keys, if `KEYS[1]` is the record
/// `ARGV[1]`.
const REMOVE_EXPIRED: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local removed = 0
for i = 2, #KEYS do removed = removed + redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', ARGV[2]) end
return removed";

/// Removes up to `ARGV[3]` of the members of `KEYS[2]` scored `ARGV[2]` or less, if `KEYS[1]` is the record `ARGV[1]`.
/// A script is atomic, so the members that it read are still expired when it removes them.
const REMOVE_FIRST_EXPIRED: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local members = redis.call('ZRANGE', KEYS[2], '-inf', ARGV[2], 'BYSCORE', 'LIMIT', 0, ARGV[3])
if #members == 0 then return 0 end
return redis.call('ZREM', KEYS[2], unpack(members))";

/// Removes the name `ARGV[1]` from the index, the last key, unless its segment, the keys before, has members. A key of
/// another type has none, and stays as it is.
const DROP_UNLESS_OCCUPIED: &str = "\
for i = 1, #KEYS - 1 do
  local members = redis.pcall('ZCARD', KEYS[i])
  if type(members) == 'table' then
    if not string.find(members.err, 'WRONGTYPE', 1, true) then return members end
    members = 0
  end
  if members > 0 then return 0 end
end
return redis.call('ZREM', KEYS[#KEYS], ARGV[1])";

impl Store {
    /// Number of members that a slice removes; up to twice as many if scores are equal. Redis takes 0.5-0.7 us for
    /// each, so a slice blocks it for about a millisecond at most.
    pub const SLICE: usize = 1_000;

    /// Counts the members of each of `segments`, in one of its keys of `partition`, and those seen at or before
    /// `cutoff`, in one round trip.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, for one of them or for all.
    pub async fn count_members(
        &self,
        partition: Partition,
        segments: &[(SegmentKey, &SegmentName<'_>)],
        cutoff: Timestamp,
    ) -> Result<Vec<Result<MemberCounts, Error>>, Error> {
        let mut pipeline = Pipeline::with_capacity(2 * segments.len());
        for (key, segment) in segments {
            let key = self.key_names.segment(*key, segment.as_str());
            pipeline.cmd("ZCOUNT").arg(&key).arg("-inf").arg(cutoff.as_score());
            pipeline.cmd("ZCARD").arg(key);
        }
        let answers = self.client.send(Request::new(partition.slot(), pipeline)).await?.results();
        let mut numbers = answers.into_iter().map(|answer| answer.and_then(parse::<u64>));
        let mut next = || numbers.next().expect("each command has an answer");
        Ok(segments
            .iter()
            .map(|_| (next(), next()))
            .map(|(expired, members)| Ok(MemberCounts { expired: expired?, members: members? }))
            .collect())
    }

    /// Removes the members of `segments`, in one of its keys of `partition`, that were seen at or before `cutoff`, in
    /// one round trip, and returns their number. They must be few, since Redis removes them without interruption.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; any may have been removed. [`Error::LayoutChanged`] if `layout` is no
    /// longer in force; nothing was removed.
    pub async fn remove_all_expired(
        &self,
        layout: &Layout,
        partition: Partition,
        segments: &[(SegmentKey, &SegmentName<'_>)],
        cutoff: Timestamp,
    ) -> Result<u64, Error> {
        let mut pipeline = pipe();
        let script =
            pipeline.cmd("EVAL").arg(REMOVE_EXPIRED).arg(1 + segments.len()).arg(self.key_names.layout_of(partition));
        for (key, segment) in segments {
            script.arg(self.key_names.segment(*key, segment.as_str()));
        }
        script.arg(layout.record()).arg(cutoff.as_score());
        Ok(self.run_removal(partition, pipeline).await?.unwrap_or_default())
    }

    /// Runs a script that removes members and returns their number; `None` while the slot is migrating. The next prune
    /// removes the rest.
    async fn run_removal(&self, partition: Partition, script: Pipeline) -> Result<Option<u64>, Error> {
        let removed = self.scripts_on_many_keys(partition, script).await?.into_iter().next().flatten();
        removed.map(|removed| removed.try_into().map_err(|_| Error::LayoutChanged)).transpose()
    }

    /// Removes up to about [`Self::SLICE`] of the members of `segment` in `key` that were seen at or before `cutoff`.
    ///
    /// A slice is cut by score, never by rank, because concurrent writes shift ranks. A member that is seen again
    /// before the removal has a score beyond `cutoff`, so the slice doesn't contain it. A concurrent prune does no
    /// harm: it removes expired members as well.
    ///
    /// # Errors
    ///
    /// As [`Self::remove_all_expired`].
    pub async fn remove_expired_slice(
        &self,
        layout: &Layout,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<SliceOutcome, Error> {
        let partition = key.partition;
        let (record, key) = (self.key_names.layout_of(partition), self.key_names.segment(key, segment.as_str()));
        let cutoff = cutoff.as_score();
        let last_rank = Self::SLICE - 1;
        let (slice_end, next_end) = self.scores_at(partition, &key, last_rank, last_rank + Self::SLICE).await?;

        let is_done = slice_end.is_none_or(|score| score >= cutoff);
        let slice_end = slice_end.unwrap_or(cutoff).min(cutoff);
        // If so many members share a score that the next slice would end at it as well, no score separates them. Visits
        // that were imported with dates instead of times cause this.
        let is_plateau = next_end.is_some_and(|score| score <= slice_end);

        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(if is_plateau { REMOVE_FIRST_EXPIRED } else { REMOVE_EXPIRED });
        script.arg(2).arg(record).arg(key).arg(layout.record()).arg(slice_end);
        if is_plateau {
            script.arg(Self::SLICE);
        }
        Ok(match self.run_removal(partition, pipeline).await? {
            Some(removed) => SliceOutcome { removed, is_done: is_done && !is_plateau },
            None => SliceOutcome { removed: 0, is_done: true },
        })
    }

    /// Removes those of `segments` without members from the index of `partition`, in one round trip, and returns their
    /// number. A segment whose key holds another type has no members. The key itself stays.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; any may have been removed.
    pub async fn drop_unless_occupied(&self, partition: Partition, segments: &[&str]) -> Result<u64, Error> {
        let mut pipeline = Pipeline::with_capacity(segments.len());
        for segment in segments {
            let script = pipeline.cmd("EVAL").arg(DROP_UNLESS_OCCUPIED).arg(partition.segment_keys().len() + 1);
            for key in partition.segment_keys() {
                script.arg(self.key_names.segment(key, segment));
            }
            script.arg(self.key_names.index(partition)).arg(*segment);
        }
        // While the slot is migrating, nothing is removed. The next prune tries again.
        let dropped = self.scripts_on_many_keys(partition, pipeline).await?;
        Ok(dropped.into_iter().flatten().filter(|dropped| *dropped > 0).count() as u64)
    }

    /// Returns the scores of the members at two ranks in ascending order; `None` beyond the last member.
    async fn scores_at(
        &self,
        partition: Partition,
        key: &str,
        first: usize,
        second: usize,
    ) -> Result<(Option<f64>, Option<f64>), Error> {
        let mut pipeline = Pipeline::with_capacity(2);
        for rank in [first, second] {
            pipeline.cmd("ZRANGE").arg(key).arg(rank).arg(rank).arg("WITHSCORES");
        }
        type Member = (Vec<u8>, f64);
        let (first, second): (Vec<Member>, Vec<Member>) =
            self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok((first.first().map(|(_, score)| *score), second.first().map(|(_, score)| *score)))
    }
}
