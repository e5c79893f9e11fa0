//! What an instance knows of samples. Nothing here asks Redis.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::depths::written;
use crate::domain::{Level, SegmentName, UserId};
use crate::store::partition::hash;
use crate::store::{Partition, Store};

impl Store {
    /// Whether all of `segments` keep a sample without `user_id`, as the instance knows it: visits need no command then.
    pub(crate) fn are_sampled_out(&self, user_id: &UserId<'_>, segments: &[SegmentName<'_>]) -> bool {
        let known = self.layout.load();
        let Some(known) = known.as_ref() else { return false };
        known.layout.written().all(|keys| {
            keys.max_members().is_some() && {
                let depths = self.depths.recent(keys.of(hash(user_id.as_str())));
                let level = Level::of(user_id.as_str());
                segments.iter().all(|segment| !written(depths.as_deref(), segment.as_str()).keeps(level))
            }
        })
    }

    /// Returns the partitions that counts read, if their segments are bounded.
    fn bounded_partitions(&self) -> Option<impl Iterator<Item = Partition>> {
        let keys = self.layout.load().as_ref()?.layout.read();
        keys.max_members().map(|_| keys.all())
    }

    /// Returns the number of segments that keep a sample, as the instance knows it; `None` if it doesn't, or if
    /// segments aren't bounded.
    #[must_use]
    pub fn sampled_segment_count(&self) -> Option<u64> {
        let mut names = HashSet::<Box<str>, RandomState>::default();
        for partition in self.bounded_partitions()? {
            names.extend(self.depths.latest(partition)?.keys().cloned());
        }
        Some(names.len() as u64)
    }

    /// Returns the depth of `segment` in the partition where it is highest, as the instance knows it; 0 if segments
    /// aren't bounded, and `None` if the instance doesn't know it.
    #[must_use]
    pub fn depth_of(&self, segment: &SegmentName<'_>) -> Option<u8> {
        let mut deepest = 0;
        for partition in self.bounded_partitions().into_iter().flatten() {
            let depths = self.depths.latest(partition)?;
            deepest = depths.get(segment.as_str()).map_or(deepest, |depth| deepest.max(depth.complete().number()));
        }
        Some(deepest)
    }

    /// Returns how many members the fullest segment keeps in a partition, relative to its bound there, as the last
    /// prune and later checks found it; `None` before the first of them, or if segments aren't bounded.
    #[must_use]
    pub fn max_fill_ratio(&self) -> Option<f64> {
        self.depths.fill_ratios.max(self.bounded_partitions()?)
    }
}
