//! Before the deletion of a segment that keeps a sample: from the deletion on, every visit must be written.

use std::collections::BTreeMap;

use ::redis::Value;
use futures_util::future::try_join_all;

use super::depths::Depths;
use super::segment_depth::SegmentDepth;
use crate::domain::{SegmentName, Timestamp};
use crate::redis::Request;
use crate::store::layout::KnownLayout;
use crate::store::{Error, Partition, Store};

impl Store {
    /// Returns the depth that `segment` has in each of `partitions`, whose levels are all written by now. Marks those
    /// that keep a sample as about to be deleted at `now`, and waits until no instance drops a visit. A raise may
    /// replace a depth before the segment is deleted.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, or if an ACL forbids `TIME`.
    pub(in crate::store) async fn prepare_deletion(
        &self,
        partitions: &[Partition],
        segment: &SegmentName<'_>,
        now: Timestamp,
        known: &KnownLayout,
    ) -> Result<BTreeMap<Partition, SegmentDepth>, Error> {
        if partitions.iter().all(|partition| partition.bound().is_none()) {
            return Ok(BTreeMap::new());
        }
        let reads = partitions.iter().map(|partition| self.depth_read(*partition, segment));
        let answers = self.client.send_by_server::<Value>(reads, Request::each).await?;
        let mut depths = BTreeMap::new();
        for (partition, answer) in partitions.iter().zip(answers) {
            depths.insert(*partition, self.parse_depth(*partition, answer)?);
        }
        let sampled = depths.iter_mut().filter(|(_, depth)| !depth.is_zero());
        let marking = sampled.map(|(partition, depth)| async move {
            // Two deletions at a time share a mark.
            if !depth.is_marked(now) {
                let marked = depth.before_deletion(now);
                // If the depth has changed, the deletion finds another one and is repeated.
                self.set_depth(&known.layout, *partition, segment.as_str(), *depth, marked).await?;
                *depth = marked;
            }
            Ok::<_, Error>(())
        });
        if !try_join_all(marking).await?.is_empty() {
            tokio::time::sleep(Depths::MAX_AGE).await;
        }
        Ok(depths)
    }
}
