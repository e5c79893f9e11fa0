//! A hash join of the members of several segments, in bounded memory.
//!
//! The build side is an arena with a record for each user: the user's id, and a mask of the segments in which it was
//! read. A hash table leads to the records. Ids are compared in full, so the counts are exact.
//!
//! If the memory is used up, the join spills the upper half of its range of hashes, the [`HashRange`]. These users are
//! counted in a pass of their own, which reads all members again.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::mask_counts::MaskCounts;

/// Hashes are seeded at random, so that nobody can choose ids that collide.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The join of one pass.
#[derive(Debug)]
pub struct HashJoin {
    range: HashRange,
    /// The limit on the memory of the table and the arena, in bytes.
    max_bytes: usize,
    table: HashTable<Entry>,
    /// The arena. A record is the mask of the segments, the length of the id minus 1, and the id. It lies in one chunk.
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
    counts: MaskCounts,
}

/// Where a user's record is.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The half of the hash that [`HashRange`] doesn't use: all users of a range may have the other half in common.
    fingerprint: u32,
    /// The position of the record, counted through all chunks.
    record: u32,
}

impl Entry {
    /// Returns the hash for the table, which uses the highest and the lowest bits.
    fn hash(self) -> u64 {
        u64::from(self.fingerprint) << 32 | u64::from(self.fingerprint)
    }
}

/// A range of the upper halves of hashes, and thus a part of all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    from: u64,
    to: u64,
}

impl HashRange {
    const END: u64 = 1 << 32;
    /// All users.
    pub const ALL: Self = Self { from: 0, to: Self::END };

    fn contains(self, hash: u64) -> bool {
        (self.from..self.to).contains(&(hash >> 32))
    }

    /// Returns the lower half, unless the range is a single value.
    fn lower_half(self) -> Option<Self> {
        let middle = self.from.midpoint(self.to);
        (middle > self.from).then_some(Self { to: middle, ..self })
    }

    /// Returns the next range, of the same length, or `None` at the end.
    pub fn next(self) -> Option<Self> {
        let to = (self.to + (self.to - self.from)).min(Self::END);
        (self.to < Self::END).then_some(Self { from: self.to, to })
    }
}

impl HashJoin {
    const MAX_ID_BYTES: usize = crate::domain::UserId::MAX_BYTES;
    /// The bytes of a record in front of the id.
    const HEADER_BYTES: usize = 2;
    /// The table's size before it grows.
    const INITIAL_CAPACITY: usize = 48;

    /// Creates a join of the users in `range`, which uses up to `max_bytes` of memory.
    pub fn new(segments: usize, range: HashRange, max_bytes: usize) -> Self {
        // Large enough for any record, and small enough that the unused end of the last chunk is little of the whole.
        let chunk_bytes = (max_bytes / 64).clamp(Self::HEADER_BYTES + Self::MAX_ID_BYTES, 1024 * 1024);
        let table = HashTable::with_capacity(Self::INITIAL_CAPACITY);
        Self { range, max_bytes, table, chunks: Vec::new(), chunk_bytes, counts: MaskCounts::new(segments) }
    }

    /// Adds members of the segment with this index. May spill a part of the range.
    pub fn add(&mut self, segment: usize, ids: &[Vec<u8>]) {
        // The service writes no other ids.
        for id in ids.iter().filter(|id| (1..=Self::MAX_ID_BYTES).contains(&id.len())) {
            self.add_one(1 << segment, id);
        }
    }

    fn add_one(&mut self, bit: u8, id: &[u8]) {
        let hash = HASHES.hash_one(id);
        loop {
            if !self.range.contains(hash) {
                return;
            }
            if let Some(record) = self.find(hash, id) {
                let mask = self.mask_at(record);
                let before = *mask;
                *mask |= bit;
                self.counts.move_user(before, before | bit);
                return;
            }
            if self.make_room(id.len()) {
                self.push(hash, bit, id);
                return;
            }
        }
    }

    /// Makes room for a user whose id has this length. Returns false if it had to spill.
    fn make_room(&mut self, id_bytes: usize) -> bool {
        let used = self.used_bytes();
        let must_grow = self.table.len() == self.table.capacity();
        let has_room =
            self.chunks.last().is_some_and(|chunk| chunk.len() + Self::HEADER_BYTES + id_bytes <= self.chunk_bytes);
        // While the table grows, the old one is still there.
        let table = if must_grow { 2 * self.table.allocation_size() } else { 0 };
        let needed = used + table + if has_room { 0 } else { self.chunk_bytes };
        if needed > self.max_bytes
            && let Some(half) = self.range.lower_half()
        {
            self.spill(half);
            return false;
        }
        if must_grow {
            self.table.reserve(1, |entry| entry.hash());
        }
        if !has_room {
            self.chunks.push(Vec::with_capacity(self.chunk_bytes));
        }
        true
    }

    fn used_bytes(&self) -> usize {
        self.table.allocation_size() + self.chunks.len() * self.chunk_bytes
    }

    /// Keeps the users in `range`, and drops all others.
    fn spill(&mut self, range: HashRange) {
        self.range = range;
        self.table.clear();
        self.counts.clear();
        for chunk in std::mem::take(&mut self.chunks) {
            let mut rest = chunk.as_slice();
            while let [mask, length, following @ ..] = rest {
                let (id, following) = following.split_at(usize::from(*length) + 1);
                let hash = HASHES.hash_one(id);
                if range.contains(hash) {
                    let has_room = |chunk: &Vec<u8>| chunk.len() + Self::HEADER_BYTES + id.len() <= self.chunk_bytes;
                    if !self.chunks.last().is_some_and(has_room) {
                        self.chunks.push(Vec::with_capacity(self.chunk_bytes));
                    }
                    self.push(hash, *mask, id);
                }
                rest = following;
            }
        }
    }

    /// Appends a record to the last chunk, which must have room for it.
    fn push(&mut self, hash: u64, mask: u8, id: &[u8]) {
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        debug_assert!(chunk.len() + Self::HEADER_BYTES + id.len() <= self.chunk_bytes);
        let record = u32::try_from(index * self.chunk_bytes + chunk.len()).expect("the limit is far below 4 GiB");
        chunk.extend_from_slice(&[mask, (id.len() - 1) as u8]);
        chunk.extend_from_slice(id);
        let entry = Entry { fingerprint: fingerprint(hash), record };
        self.table.insert_unique(entry.hash(), entry, |entry| entry.hash());
        self.counts.add_user(mask);
    }

    /// Returns the position of the user's record.
    fn find(&self, hash: u64, id: &[u8]) -> Option<usize> {
        let wanted = Entry { fingerprint: fingerprint(hash), record: 0 };
        let is_wanted =
            |entry: &Entry| entry.fingerprint == wanted.fingerprint && self.id_at(entry.record as usize) == id;
        self.table.find(wanted.hash(), is_wanted).map(|entry| entry.record as usize)
    }

    fn id_at(&self, record: usize) -> &[u8] {
        let rest = &self.chunks[record / self.chunk_bytes][record % self.chunk_bytes..];
        &rest[Self::HEADER_BYTES..][..usize::from(rest[1]) + 1]
    }

    fn mask_at(&mut self, record: usize) -> &mut u8 {
        &mut self.chunks[record / self.chunk_bytes][record % self.chunk_bytes]
    }

    /// Returns the counts of the users in [`Self::range`].
    pub fn counts(&self) -> &MaskCounts {
        &self.counts
    }

    /// Returns the range of the users that were not spilled.
    pub fn range(&self) -> HashRange {
        self.range
    }
}

/// Returns the half of a hash that [`HashRange`] doesn't use.
fn fingerprint(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::mask_estimates::{MaskEstimates, Overlap, Pair, Region};
    use super::*;
    use crate::domain::{Depth, Estimate};

    /// Runs all passes over `segments`, in slices. Returns the overlap and the number of passes.
    fn join(segments: &[Vec<Vec<u8>>], max_bytes: usize) -> (Overlap, usize) {
        let (mut sum, mut range, mut passes) = (MaskEstimates::new(segments.len()), Some(HashRange::ALL), 0);
        while let Some(wanted) = range {
            let mut join = HashJoin::new(segments.len(), wanted, max_bytes);
            for (index, ids) in segments.iter().enumerate() {
                ids.chunks(7).for_each(|slice| join.add(index, slice));
            }
            sum.add(join.counts(), Depth::ZERO);
            range = join.range().next();
            passes += 1;
        }
        (sum.overlap(), passes)
    }

    fn exact(users: usize) -> Estimate {
        Estimate::exact(users as u64)
    }

    /// Computes the overlap with sets.
    fn reference(segments: &[Vec<Vec<u8>>]) -> Overlap {
        let sets: Vec<BTreeSet<_>> = segments.iter().map(|ids| ids.iter().collect()).collect();
        let all: BTreeSet<_> = sets.iter().flatten().collect();
        let mut pairs = Vec::new();
        for first in 0..sets.len() {
            for second in first + 1..sets.len() {
                pairs.push(Pair { first, second, both: exact(sets[first].intersection(&sets[second]).count()) });
            }
        }
        let mask_of = |id: &&&Vec<u8>| (0..sets.len()).filter(|&n| sets[n].contains(**id)).map(|n| 1 << n).sum::<u8>();
        let mut by_mask = BTreeMap::new();
        all.iter().map(mask_of).for_each(|mask| *by_mask.entry(mask).or_default() += 1);
        let mut regions: Vec<_> =
            by_mask.into_iter().map(|(mask, count)| Region { mask, count: exact(count) }).collect();
        regions.sort_by_key(|region| Reverse(region.count.count()));
        Overlap {
            any: exact(all.len()),
            all: exact(all.iter().filter(|id| sets.iter().all(|set| set.contains(**id))).count()),
            counts: sets.iter().map(|set| exact(set.len())).collect(),
            pairs,
            regions,
        }
    }

    fn ids(numbers: impl Iterator<Item = u32>) -> Vec<Vec<u8>> {
        numbers.map(|number| format!("u{number}").into_bytes()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn join_gives_what_sets_give_however_little_memory_it_has(
            segments in proptest::collection::vec(
                proptest::collection::vec(0_u32..600, 0..300), 2..=8,
            ),
            limit in prop_oneof![Just(4_000_usize), Just(20_000), Just(1_000_000)],
        ) {
            // Ids of all lengths, many of them in several segments and twice in one.
            let segments: Vec<Vec<Vec<u8>>> = segments
                .into_iter()
                .map(|ids| ids.into_iter().map(|n| format!("{n}{}", "x".repeat(n as usize % 251)).into_bytes()))
                .map(Iterator::collect)
                .collect();
            prop_assert_eq!(join(&segments, limit).0, reference(&segments));
        }
    }

    #[test]
    fn join_makes_more_passes_with_less_memory_and_gives_the_same_counts() {
        let segments = [ids(0..20_000), ids(10_000..30_000), ids((0..30_000).step_by(3))];
        let expected = reference(&segments);
        let (roomy, passes) = join(&segments, 4_000_000);
        assert_eq!((&roomy, passes), (&expected, 1));
        let (tight, passes) = join(&segments, 100_000);
        assert_eq!(tight, expected);
        assert!(passes > 4, "{passes}");
    }

    #[test]
    fn join_stays_within_its_memory() {
        let max_bytes = 200_000;
        let mut join = HashJoin::new(2, HashRange::ALL, max_bytes);
        for slice in ids(0..100_000).chunks(1_000) {
            join.add(0, slice);
            let chunks: usize = join.chunks.iter().map(Vec::capacity).sum();
            assert!(chunks + join.table.allocation_size() <= max_bytes);
        }
        assert!(join.range() != HashRange::ALL && join.table.len() > 1_000, "{}", join.table.len());
    }

    #[test]
    fn next_covers_all_hashes_without_a_gap() {
        let mut range = HashRange::ALL.lower_half().and_then(HashRange::lower_half).unwrap();
        let mut ranges = vec![range];
        while let Some(next) = range.next() {
            range = if ranges.len() < 4 { next.lower_half().unwrap() } else { next };
            ranges.push(range);
        }
        assert_eq!((ranges[0].from, range.to), (0, HashRange::END));
        assert!(ranges.windows(2).all(|two| two[0].to == two[1].from));
        let one = HashRange { from: 5, to: 6 };
        assert_eq!(one.lower_half(), None);
    }
}
