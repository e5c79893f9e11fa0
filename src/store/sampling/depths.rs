//! What an instance knows of the depths of segments.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::additions::Additions;
use super::fill::FillRatios;
use super::segment_depth::SegmentDepth;
use crate::domain::Depth;
use crate::store::partition::Partition;

/// The depths of the segments of a partition, by name; those of depth 0 are missing.
pub(in crate::store) type DepthsByName = HashMap<Box<str>, SegmentDepth, RandomState>;

/// The known depths of all partitions, and the members that were added since the last check of a segment. Clones of a
/// store share it.
#[derive(Debug, Default)]
pub(in crate::store) struct Depths {
    known: RwLock<HashMap<Partition, PartitionDepths, RandomState>>,
    additions: Additions,
    /// The partitions whose depths are being read.
    in_flight: Mutex<HashSet<Partition, RandomState>>,
    is_watched: AtomicBool,
    pub(super) fill_ratios: FillRatios,
}

/// The depths of a partition, and when they were read.
#[derive(Debug, Clone)]
struct PartitionDepths {
    by_name: Arc<DepthsByName>,
    /// Just before the read was sent.
    read_at: Instant,
}

impl Depths {
    /// Time between reads.
    pub(super) const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
    /// Maximum age of knowledge that drops visits. A lower depth is recorded [15 s](SegmentDepth::FALL_DELAY_SECS)
    /// before it counts, and a segment is marked for this long before it is deleted.
    pub(in crate::store) const MAX_AGE: Duration = Duration::from_secs(3);

    /// Returns the depths of the segments in `partition`; `None` if they are not known well enough to drop a visit.
    pub(in crate::store) fn recent(&self, partition: Partition) -> Option<Arc<DepthsByName>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()?;
        (known.read_at.elapsed() <= Self::MAX_AGE).then_some(known.by_name)
    }

    /// Returns the last known depths of the segments in `partition`, however old; `None` before the first read.
    pub(in crate::store) fn latest(&self, partition: Partition) -> Option<Arc<DepthsByName>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&partition).map(|known| Arc::clone(&known.by_name))
    }

    /// Replaces the depths of the segments in `partition`. The read was sent just after `read_at`.
    pub(super) fn replace(&self, partition: Partition, by_name: DepthsByName, read_at: Instant) {
        let known = PartitionDepths { by_name: Arc::new(by_name), read_at };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(partition, known);
    }

    /// Notes the depth of the segment `name`, which this instance has recorded.
    pub(super) fn learn(&self, partition: Partition, name: &str, depth: SegmentDepth) {
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&partition) {
            let by_name = Arc::make_mut(&mut known.by_name);
            if depth.is_zero() {
                by_name.remove(name);
            } else {
                by_name.insert(name.into(), depth);
            }
        }
    }

    /// Returns whether this is the first call: the depths must be read from now on.
    pub(super) fn begin_watch(&self) -> bool {
        !self.is_watched.swap(true, Ordering::Relaxed)
    }

    /// Returns those of `partitions` that are not being read, and marks them as such.
    pub(super) fn begin_reads(&self, partitions: impl Iterator<Item = Partition>) -> Vec<Partition> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.filter(|partition| in_flight.insert(*partition)).collect()
    }

    /// Notes that the reads of `partitions` have ended.
    pub(super) fn end_reads(&self, partitions: &[Partition]) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().for_each(|partition| {
            in_flight.remove(partition);
        });
    }

    /// Notes `added` new members of the segment `name`. Returns whether the segment must be checked now.
    pub(in crate::store) fn add(&self, partition: Partition, name: &str, added: u32) -> bool {
        self.additions.add(partition, name, added)
    }

    /// Notes that the check of the segment `name` has ended and found it to keep so many members; `None` if it failed,
    /// or if something kept it from raising the depth. Returns whether the segment must be checked again.
    pub(super) fn end_check(&self, partition: Partition, name: &str, kept: Option<u64>) -> bool {
        if let (Some(kept), Some(bound)) = (kept, partition.bound()) {
            self.fill_ratios.set(partition, name, kept as f64 / f64::from(bound));
        }
        self.additions.end_check(partition, name, kept)
    }
}

/// Returns the lowest level of the segment `name` that is written, as far as `known`.
pub(in crate::store) fn written(known: Option<&DepthsByName>, name: &str) -> Depth {
    known.and_then(|known| known.get(name)).map_or(Depth::ZERO, |depth| depth.written())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(None, 0, Some(1_024))
    }

    #[test]
    fn recent_leaves_out_old_knowledge() {
        let (depths, partition) = (Depths::default(), partition());
        assert!(depths.recent(partition).is_none());
        let seven = SegmentDepth::steady(Depth::from_number(7).unwrap());
        depths.replace(partition, [("a".into(), seven)].into_iter().collect(), Instant::now());
        assert_eq!(written(depths.recent(partition).as_deref(), "a"), seven.written());
        assert_eq!(written(depths.recent(partition).as_deref(), "b"), Depth::ZERO);
        let old = Instant::now() - Depths::MAX_AGE - Duration::from_millis(1);
        depths.replace(partition, DepthsByName::default(), old);
        assert!(depths.recent(partition).is_none() && depths.latest(partition).is_some());
    }
}
