//! Reading the depths that reads of members depend on.

use ::redis::Value;
use ::redis::cmd;

use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::Request;
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
        let reads = segments.iter().map(|segment| {
            let mut read = cmd("HGET");
            read.arg(self.key_names.depths(partition)).arg(segment.as_str());
            (partition.slot(), read)
        });
        for answer in self.client.send(Request::each(reads)).await?.results() {
            let answer: Result<Value, _> = answer;
            common = common.max(self.parse_depth(partition, answer)?.at(cutoff));
        }
        Ok(common)
    }
}
