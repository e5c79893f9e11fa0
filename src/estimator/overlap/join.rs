//! Joining the members of several segments by their names, in bounded memory.
//!
//! Every user that is met stands once in an arena, with a mask of the segments in which he was met; a table of hashes leads to
//! him. Names are compared themselves, so the numbers are exact. When the memory is used up, half of the users are let go: those in
//! the upper half of the range of hashes that is looked at, the [`Share`]. They are counted in a pass of their own, for which
//! everything is read again.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use super::tally::Tally;

/// Hashes are seeded at random, so that nobody can choose ids that fall on each other.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The users of one pass.
#[derive(Debug)]
pub struct Join {
    share: Share,
    /// In bytes.
    limit: usize,
    /// An open hash table: of each user, [`tag_of`] his hash in the upper half, and where his record begins, plus 1, in the lower.
    slots: Vec<u64>,
    /// How many slots are taken.
    users: usize,
    /// Records: the mask of the segments, the length of the name less 1, and the name. None is in two chunks.
    chunks: Vec<Vec<u8>>,
    /// How long a chunk is.
    chunk: usize,
    tally: Tally,
}

/// A part of all users, by the upper halves of their hashes: from the first, up to the second and without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    from: u64,
    to: u64,
}

impl Share {
    const END: u64 = 1 << 32;
    /// All users.
    pub const ALL: Self = Self { from: 0, to: Self::END };

    fn has(self, hash: u64) -> bool {
        (self.from..self.to).contains(&(hash >> 32))
    }

    /// Its lower half, if it can be split.
    fn half(self) -> Option<Self> {
        let middle = self.from.midpoint(self.to);
        (middle > self.from).then_some(Self { to: middle, ..self })
    }

    /// The share that comes next, as large as this one; none behind the last.
    pub fn next(self) -> Option<Self> {
        let to = (self.to + (self.to - self.from)).min(Self::END);
        (self.to < Self::END).then_some(Self { from: self.to, to })
    }
}

impl Join {
    /// The longest name that a user can have.
    const LONGEST: usize = crate::domain::UserId::MAX_BYTES;
    /// What a record has beside the name.
    const HEAD: usize = 2;

    /// Joins those members of so many `segments` that are in `share`, in as many bytes as `limit`.
    pub fn new(segments: usize, share: Share, limit: usize) -> Self {
        // A record must fit, and what the last chunk has left over is little of the whole.
        let chunk = (limit / 64).clamp(Self::HEAD + Self::LONGEST, 1024 * 1024);
        Self { share, limit, slots: vec![0; 64], users: 0, chunks: Vec::new(), chunk, tally: Tally::new(segments) }
    }

    /// Joins members of the segment at this `place`. It may let go some of its share.
    pub fn add(&mut self, place: usize, names: &[Vec<u8>]) {
        // Others are not ours: nobody could have written them with the service.
        for name in names.iter().filter(|name| (1..=Self::LONGEST).contains(&name.len())) {
            self.add_one(1 << place, name);
        }
    }

    fn add_one(&mut self, bit: u8, name: &[u8]) {
        let hash = HASHES.hash_one(name);
        loop {
            if !self.share.has(hash) {
                return;
            }
            if let Some(record) = self.find(hash, name) {
                let mask = self.mask_at(record);
                let before = *mask;
                *mask |= bit;
                self.tally.move_one(before, before | bit);
                return;
            }
            if self.make_room(name.len()) {
                self.push(hash, bit, name);
                return;
            }
        }
    }

    /// Sees that there is room for one more user: gives false if some had to be let go for it.
    fn make_room(&mut self, length: usize) -> bool {
        let taken = size_of_val(self.slots.as_slice()) + self.chunks.len() * self.chunk;
        let must_grow = (self.users + 1) * 4 > self.slots.len() * 3;
        let has_room = self.chunks.last().is_some_and(|chunk| chunk.len() + Self::HEAD + length <= self.chunk);
        // The old table is there until the new one is made.
        let table = if must_grow { 2 * size_of_val(self.slots.as_slice()) } else { 0 };
        let needed = taken + table + if has_room { 0 } else { self.chunk };
        if needed > self.limit
            && let Some(half) = self.share.half()
        {
            self.let_go(half);
            return false;
        }
        if must_grow {
            self.grow();
        }
        if !has_room {
            self.chunks.push(Vec::with_capacity(self.chunk));
        }
        true
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; 2 * old.len()];
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            // The upper half is all that a place in the table comes from.
            let free = self.free_slot(slot >> 32);
            self.slots[free] = slot;
        }
    }

    /// Goes on with the users in `share` alone.
    fn let_go(&mut self, share: Share) {
        self.share = share;
        self.slots.fill(0);
        self.users = 0;
        self.tally = Tally::new(self.tally.segments());
        for chunk in std::mem::take(&mut self.chunks) {
            let mut rest = chunk.as_slice();
            while let [mask, length, following @ ..] = rest {
                let (name, following) = following.split_at(usize::from(*length) + 1);
                let hash = HASHES.hash_one(name);
                if share.has(hash) {
                    if self.chunks.last().is_none_or(|chunk| chunk.len() + Self::HEAD + name.len() > self.chunk) {
                        self.chunks.push(Vec::with_capacity(self.chunk));
                    }
                    self.push(hash, *mask, name);
                }
                rest = following;
            }
        }
    }

    /// Writes a record into the last chunk, which has room, and the way there into a free slot.
    fn push(&mut self, hash: u64, mask: u8, name: &[u8]) {
        let slot = self.free_slot(hash);
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let record = (number * self.chunk + chunk.len()) as u64 + 1;
        debug_assert!(record < 1 << 32 && chunk.len() + Self::HEAD + name.len() <= self.chunk);
        chunk.extend_from_slice(&[mask, (name.len() - 1) as u8]);
        chunk.extend_from_slice(name);
        self.slots[slot] = tag_of(hash) << 32 | record;
        self.users += 1;
        self.tally.add_one(mask);
    }

    /// Where the record of a user begins, if he was met.
    fn find(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let mut slot = self.home_of(hash);
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return None;
            }
            let record = (entry & u64::from(u32::MAX)) as usize - 1;
            if entry >> 32 == tag_of(hash) && self.name_at(record) == name {
                return Some(record);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn free_slot(&self, hash: u64) -> usize {
        let mut slot = self.home_of(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }

    fn home_of(&self, hash: u64) -> usize {
        tag_of(hash) as usize & (self.slots.len() - 1)
    }

    fn name_at(&self, record: usize) -> &[u8] {
        let rest = &self.chunks[record / self.chunk][record % self.chunk..];
        &rest[Self::HEAD..][..usize::from(rest[1]) + 1]
    }

    fn mask_at(&mut self, record: usize) -> &mut u8 {
        &mut self.chunks[record / self.chunk][record % self.chunk]
    }

    /// What was joined, and is in its share still.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The users that it has.
    pub fn share(&self) -> Share {
        self.share
    }
}

/// The half of a hash that the table goes by; the other is that of [`Share`], which all users of a join may have in common.
fn tag_of(hash: u64) -> u64 {
    hash & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::tally::{Overlap, Pair};
    use super::*;

    /// All passes over `segments`, given in slices, with so much memory; and how many there were.
    fn joined(segments: &[Vec<Vec<u8>>], limit: usize) -> (Overlap, usize) {
        let (mut sum, mut share, mut passes) = (Tally::new(segments.len()), Some(Share::ALL), 0);
        while let Some(now) = share {
            let mut join = Join::new(segments.len(), now, limit);
            for (place, names) in segments.iter().enumerate() {
                names.chunks(7).for_each(|slice| join.add(place, slice));
            }
            sum.add(join.tally());
            share = join.share().next();
            passes += 1;
        }
        (sum.overlap(), passes)
    }

    /// The same by the book.
    fn naive(segments: &[Vec<Vec<u8>>]) -> Overlap {
        let sets: Vec<BTreeSet<_>> = segments.iter().map(|names| names.iter().collect()).collect();
        let all: BTreeSet<_> = sets.iter().flatten().collect();
        let mut pairs = Vec::new();
        for first in 0..sets.len() {
            for second in first + 1..sets.len() {
                pairs.push(Pair { first, second, both: sets[first].intersection(&sets[second]).count() as u64 });
            }
        }
        Overlap {
            any: all.len() as u64,
            all: all.iter().filter(|name| sets.iter().all(|set| set.contains(**name))).count() as u64,
            counts: sets.iter().map(|set| set.len() as u64).collect(),
            pairs,
        }
    }

    fn names(numbers: impl Iterator<Item = u32>) -> Vec<Vec<u8>> {
        numbers.map(|number| format!("u{number}").into_bytes()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_join_is_what_sets_say_however_little_memory_it_has(
            segments in proptest::collection::vec(
                proptest::collection::vec(0_u32..600, 0..300), 2..=8,
            ),
            limit in prop_oneof![Just(4_000_usize), Just(20_000), Just(1_000_000)],
        ) {
            // Names of all lengths, many in several segments, and twice in one.
            let segments: Vec<Vec<Vec<u8>>> = segments
                .into_iter()
                .map(|names| names.into_iter().map(|n| format!("{n}{}", "x".repeat(n as usize % 251)).into_bytes()))
                .map(Iterator::collect)
                .collect();
            prop_assert_eq!(joined(&segments, limit).0, naive(&segments));
        }
    }

    #[test]
    fn with_less_memory_there_are_more_passes_and_the_same_numbers() {
        let segments = [names(0..20_000), names(10_000..30_000), names((0..30_000).step_by(3))];
        let expected = naive(&segments);
        let (roomy, passes) = joined(&segments, 4_000_000);
        assert_eq!((&roomy, passes), (&expected, 1));
        let (tight, passes) = joined(&segments, 100_000);
        assert_eq!(tight, expected);
        assert!(passes > 4, "{passes}");
    }

    #[test]
    fn a_join_keeps_within_its_memory() {
        let limit = 200_000;
        let mut join = Join::new(2, Share::ALL, limit);
        for slice in names(0..100_000).chunks(1_000) {
            join.add(0, slice);
            let chunks: usize = join.chunks.iter().map(Vec::capacity).sum();
            assert!(chunks + size_of_val(join.slots.as_slice()) <= limit);
        }
        assert!(join.share() != Share::ALL && join.users > 1_000, "{}", join.users);
    }

    #[test]
    fn shares_follow_each_other_to_the_end_and_leave_nobody_out() {
        let mut share = Share::ALL.half().and_then(Share::half).unwrap();
        let mut shares = vec![share];
        while let Some(next) = share.next() {
            share = if shares.len() < 4 { next.half().unwrap() } else { next };
            shares.push(share);
        }
        assert_eq!((shares[0].from, share.to), (0, Share::END));
        assert!(shares.windows(2).all(|two| two[0].to == two[1].from));
        let one = Share { from: 5, to: 6 };
        assert_eq!(one.half(), None);
    }
}
