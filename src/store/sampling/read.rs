//! Reading the depths that reads of members depend on.

use ::redis::{Cmd, Value, cmd};

use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::{Request, Slot};
use crate::store::{Error, Partition, Store};

impl Store {
    /// Returns the highest depth of `segments` in `partition`, for members that were seen after `cutoff`: samples of several
    /// segments are comparable from this level on.
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
    /// Returns the depth of `segment` in each of `partitions`, for members that were seen after `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn depths_at(
        &self,
        partitions: &[Partition],
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<Vec<Depth>, Error> {
        let reads = partitions.iter().map(|partition| self.depth_read(*partition, segment));
        let depths = self.client.send_by_server::<Value>(reads, Request::each).await?;
        let depths = partitions.iter().zip(depths);
        depths.map(|(partition, depth)| Ok(self.parse_depth(*partition, depth)?.at(cutoff))).collect()
    }

    /// Returns the command that reads the depth of `segment` in `partition`.
    pub(in crate::store) fn depth_read(&self, partition: Partition, segment: &SegmentName<'_>) -> (Slot, Cmd) {
        let mut read = cmd("HGET");
        read.arg(self.key_names.depths(partition)).arg(segment.as_str());
        (partition.slot(), read)
    }
}
