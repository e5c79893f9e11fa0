//! The overlap that follows from the numbers of users in exactly each set of segments.

use std::cmp::Reverse;

use super::mask_counts::MaskCounts;
use crate::domain::{Depth, Estimate};

/// How many users several segments have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Users in at least one segment.
    pub any: Estimate,
    /// Users in all segments.
    pub all: Estimate,
    /// Users in each segment, in the order of the request.
    pub counts: Vec<Estimate>,
    /// Users in both segments of each pair.
    pub pairs: Vec<Pair>,
    /// Users in exactly each combination of the segments: those with users, the largest first.
    pub regions: Vec<Region>,
}

/// How many users two segments have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of the segment that comes first in the request.
    pub first: usize,
    /// Index of the other segment.
    pub second: usize,
    /// Users in both.
    pub both: Estimate,
}

/// How many users are in some of the segments and in no other of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The segments of the combination: the bit `1 << index` for each.
    pub mask: u8,
    /// Users in exactly these.
    pub count: Estimate,
}

impl Region {
    /// Returns the indices of the segments, in the order of the request.
    pub fn segments(self) -> impl Iterator<Item = usize> {
        (0..u8::BITS as usize).filter(move |index| self.mask & 1 << index != 0)
    }
}

/// For each set of segments, the number of users who are in exactly these. A set is a bit mask. The sets are disjoint,
/// so that numbers and variances of several add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskEstimates {
    counts: Vec<Estimate>,
    segments: usize,
}

impl MaskEstimates {
    /// Creates counts of zero.
    pub fn new(segments: usize) -> Self {
        Self { counts: vec![Estimate::default(); 1 << segments], segments }
    }

    /// Adds the counts of other users, which are a sample of `depth`.
    pub fn add(&mut self, sample: &MaskCounts, depth: Depth) {
        for (sum, count) in self.counts.iter_mut().zip(sample.counts()) {
            *sum = *sum + Estimate::sampled(*count, depth);
        }
    }

    /// Returns the counts with the segments in another order: segment `order[index]` becomes the one at `index`.
    pub fn in_order(&self, order: &[usize]) -> Self {
        let old_mask = |mask: usize| -> usize {
            order.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1).map(|(_, old)| 1 << old).sum()
        };
        let counts = (0..self.counts.len()).map(|mask| self.counts[old_mask(mask)]).collect();
        Self { counts, segments: self.segments }
    }

    /// Counts the users of all masks that `includes` accepts.
    pub fn count(&self, includes: impl Fn(usize) -> bool) -> Estimate {
        self.counts.iter().enumerate().filter(|(mask, _)| includes(*mask)).map(|(_, count)| *count).sum()
    }

    /// Counts the users of each segment.
    pub fn segment_counts(&self) -> Vec<Estimate> {
        (0..self.segments).map(|index| self.in_all_of(1 << index)).collect()
    }

    /// Counts the users who are in all segments of `mask`.
    fn in_all_of(&self, mask: usize) -> Estimate {
        self.count(|segments| segments & mask == mask)
    }

    /// Sums up the counts.
    pub fn overlap(&self) -> Overlap {
        let pairs = (0..self.segments).flat_map(|first| (first + 1..self.segments).map(move |second| (first, second)));
        Overlap {
            any: self.counts.iter().copied().sum(),
            all: self.in_all_of(self.counts.len() - 1),
            counts: self.segment_counts(),
            pairs: pairs
                .map(|(first, second)| Pair { first, second, both: self.in_all_of(1 << first | 1 << second) })
                .collect(),
            regions: self.regions(),
        }
    }

    fn regions(&self) -> Vec<Region> {
        let all = self.counts.iter().enumerate().map(|(mask, &count)| Region { mask: mask as u8, count });
        let mut regions: Vec<Region> = all.filter(|region| region.count.count() > 0).collect();
        // Equal counts in a fixed order, so that an answer can be compared with an earlier one.
        regions.sort_unstable_by_key(|region| (Reverse(region.count.count()), region.mask));
        regions
    }
}
