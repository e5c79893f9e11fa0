//! Reading the depths that reads of members depend on.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value, cmd};

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::{self, Request, Slot, parse};
use crate::store::{Error, KeySet, Partition, Store};

impl Store {
    /// Returns the highest depth of `segments` in `partition`, for members that were seen after `cutoff`: samples of
    /// several segments are comparable from this level on.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn common_depth(
        &self,
        partition: Partition,
        segments: &[SegmentName<'_>],
        cutoff: Timestamp,
    ) -> Result<Depth, Error> {
        let mut common = Depth::ZERO;
        if partition.bound().is_none() {
            return Ok(common);
        }
        let reads = segments.iter().map(|segment| self.depth_read(partition, segment));
        for answer in self.client.send(Request::each(reads)).await?.results() {
            let answer: Result<Value, _> = answer;
            common = common.max(self.parse_depth(partition, answer)?.at(cutoff));
        }
        Ok(common)
    }

    /// Returns the highest depth of each segment in the partitions of `keys`, for members that were seen after
    /// `cutoff`. Segments that keep all users are missing.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::ForeignKey`] if depths belong to another program.
    pub async fn depths_in(&self, keys: KeySet, cutoff: Timestamp) -> Result<BTreeMap<String, Depth>, Error> {
        let mut depths = self.highest_depths(keys, |depth| depth.at(cutoff)).await?;
        depths.retain(|_, depth| *depth != Depth::ZERO);
        Ok(depths)
    }

    /// Returns the highest `depth_of` the recorded depths of each segment in the partitions of `keys`.
    pub(super) async fn highest_depths(
        &self,
        keys: KeySet,
        depth_of: impl Fn(SegmentDepth) -> Depth,
    ) -> Result<BTreeMap<String, Depth>, Error> {
        let mut highest = BTreeMap::new();
        if keys.max_members().is_none() {
            return Ok(highest);
        }
        let reads = keys.all().map(|partition| self.depths_read(partition));
        for (partition, fields) in keys.all().zip(self.client.send_by_server(reads, Request::each).await?) {
            for (name, depth) in self.parse_depths(partition, fields)? {
                let foreign = || self.foreign_key(self.key_names.depths(partition));
                let depth = depth.map(&depth_of).ok_or_else(foreign)?;
                let deepest: &mut Depth = highest.entry(name).or_default();
                *deepest = depth.max(*deepest);
            }
        }
        Ok(highest)
    }

    /// Returns the depth of `segment` in `partition`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(crate) async fn segment_depth(
        &self,
        partition: Partition,
        segment: &SegmentName<'_>,
    ) -> Result<SegmentDepth, Error> {
        Ok(self.segment_depths(&[partition], segment).await?.remove(0))
    }

    /// Returns the depth of `segment` in each of `partitions`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(crate) async fn segment_depths(
        &self,
        partitions: &[Partition],
        segment: &SegmentName<'_>,
    ) -> Result<Vec<SegmentDepth>, Error> {
        let reads = partitions.iter().map(|partition| self.depth_read(*partition, segment));
        let depths = self.client.send_by_server::<Value>(reads, Request::each).await?;
        partitions.iter().zip(depths).map(|(partition, depth)| self.parse_depth(*partition, depth)).collect()
    }

    /// Returns the command that reads the depths of all segments in `partition`.
    pub(in crate::store) fn depths_read(&self, partition: Partition) -> (Slot, Cmd) {
        let mut read = cmd("HGETALL");
        read.arg(self.key_names.depths(partition));
        (partition.slot(), read)
    }

    /// Parses the answer to [`Self::depths_read`]: the depth of each segment, and `None` for a text of another program.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignKey`] if the key has another type. Another [`Error`] if Redis refused the command.
    pub(in crate::store) fn parse_depths(
        &self,
        partition: Partition,
        answer: Result<Value, redis::Error>,
    ) -> Result<impl Iterator<Item = (String, Option<SegmentDepth>)>, Error> {
        match answer.and_then(parse::<Vec<(String, Vec<u8>)>>) {
            Ok(fields) => Ok(fields.into_iter().map(|(name, text)| (name, SegmentDepth::parse(&text)))),
            Err(error) if error.is_wrong_type() => Err(self.foreign_key(self.key_names.depths(partition))),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the command that reads the depth of `segment` in `partition`.
    pub(in crate::store) fn depth_read(&self, partition: Partition, segment: &SegmentName<'_>) -> (Slot, Cmd) {
        let mut read = cmd("HGET");
        read.arg(self.key_names.depths(partition)).arg(segment.as_str());
        (partition.slot(), read)
    }
}
