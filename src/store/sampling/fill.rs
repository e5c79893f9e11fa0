//! How full the samples of segments are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::store::partition::Partition;

/// The members that segments keep, relative to their bound, as they were last measured.
#[derive(Debug, Default)]
pub(super) struct FillRatios(Mutex<HashMap<Partition, PartitionRatios, RandomState>>);

/// The ratios of a partition. Most segments are within their bound, and only the fullest of them matters.
#[derive(Debug, Default)]
struct PartitionRatios {
    /// The segments that keep more than their bound.
    beyond: HashMap<Box<str>, f64, RandomState>,
    /// The fullest of the others.
    within: f64,
}

impl PartitionRatios {
    fn set(&mut self, name: &str, ratio: f64) {
        if ratio > 1.0 {
            self.beyond.insert(name.into(), ratio);
        } else {
            self.beyond.remove(name);
            self.within = self.within.max(ratio);
        }
    }

    fn max(&self) -> f64 {
        self.beyond.values().copied().fold(self.within, f64::max)
    }
}

impl FillRatios {
    /// Sets the ratio of the segment `name` in `partition`.
    pub(super) fn set(&self, partition: Partition, name: &str, ratio: f64) {
        self.all().entry(partition).or_default().set(name, ratio);
    }

    /// Replaces the ratios of all segments in `partition`.
    pub(super) fn replace<'a>(&self, partition: Partition, ratios: impl IntoIterator<Item = (&'a str, f64)>) {
        let mut measured = PartitionRatios::default();
        ratios.into_iter().for_each(|(name, ratio)| measured.set(name, ratio));
        self.all().insert(partition, measured);
    }

    /// Returns the ratio of the fullest segment in `partitions`; `None` if none was measured.
    pub(super) fn max(&self, partitions: impl Iterator<Item = Partition>) -> Option<f64> {
        let all = self.all();
        partitions.filter_map(|partition| all.get(&partition)).map(PartitionRatios::max).reduce(f64::max)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Partition, PartitionRatios, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{KeySet, MaxMembers, Partitions};

    #[test]
    fn max_is_that_of_the_last_measurements() {
        let keys = KeySet::first(Partitions::parse("2").unwrap(), Some(MaxMembers::parse("1024").unwrap()));
        let [one, other] = [0, 1].map(|hash| keys.of(hash));
        let (ratios, max) = (FillRatios::default(), |ratios: &FillRatios| ratios.max(keys.all()));
        assert_eq!(max(&ratios), None);
        ratios.set(one, "a", 0.5);
        assert_eq!(max(&ratios), Some(0.5));
        ratios.set(other, "b", 2.5);
        ratios.set(one, "a", 3.0);
        assert_eq!(max(&ratios), Some(3.0));
        ratios.set(one, "a", 0.75);
        assert_eq!((max(&ratios), ratios.max(std::iter::once(one))), (Some(2.5), Some(0.75)));
        // Segment b was deleted.
        ratios.replace(other, [("c", 0.25)]);
        assert_eq!(max(&ratios), Some(0.75));
        ratios.replace(one, []);
        assert_eq!(max(&ratios), Some(0.25));
    }
}
