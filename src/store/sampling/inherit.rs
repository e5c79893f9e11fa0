//! Depths during a resharding from one bounded key set to another.

use ::redis::Value;

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, SegmentName};
use crate::redis::Request;
use crate::store::{Error, KeySet, Layout, Store};

impl Store {
    /// Raises the depths in the key set `new` to those in `old`. Levels that the old key set didn't keep can't be
    /// copied.
    ///
    /// Returns the segments that were deleted at the same time. They keep all users again, and must be copied once
    /// more.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if another layout is in force, or if the depths
    /// change all the time.
    pub async fn inherit_depths(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
    ) -> Result<Vec<SegmentName<'static>>, Error> {
        let mut deleted = Vec::new();
        for name in self.highest_depths(old, SegmentDepth::complete).await?.into_keys() {
            let Ok(segment) = SegmentName::parse(name) else { continue };
            let depth = self.complete_depth(old, &segment).await?;
            for partition in new.all() {
                self.raise_to(layout, partition, segment.as_str(), depth).await?;
            }
            if self.complete_depth(old, &segment).await? < depth {
                for partition in new.all() {
                    let sample = self.segment_sample(partition, segment.as_str()).await?;
                    self.set_depth(layout, partition, segment.as_str(), sample.depth, SegmentDepth::default()).await?;
                }
                deleted.push(segment);
            }
        }
        Ok(deleted)
    }

    /// Returns the depth from which all levels of `segment` are complete in every partition of `keys`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn complete_depth(&self, keys: KeySet, segment: &SegmentName<'_>) -> Result<Depth, Error> {
        let mut complete = Depth::ZERO;
        if keys.max_members().is_none() {
            return Ok(complete);
        }
        let reads = keys.all().map(|partition| self.depth_read(partition, segment));
        for (partition, depth) in keys.all().zip(self.client.send_by_server::<Value>(reads, Request::each).await?) {
            complete = complete.max(self.parse_depth(partition, depth)?.complete());
        }
        Ok(complete)
    }
}
