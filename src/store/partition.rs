//! Partitions: the assignment of users to them, and the tags of their keys.

use std::fmt;

use xxhash_rust::xxh64::xxh64;

use crate::domain::Level;
use crate::redis::Slot;

/// The number of partitions: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partitions {
    /// The default on one server.
    pub const ONE: Self = Self(1);
    /// The default on a cluster. With 64 partitions, the fullest of three primaries has 13 % more than its share, and
    /// each of four has its share. More partitions are more even, but make counts more expensive.
    pub const CLUSTER_DEFAULT: Self = Self(64);
    /// The maximum.
    pub const MAX: u16 = 1_024;

    /// Parses a number of partitions.
    ///
    /// # Errors
    ///
    /// What the number must be, as a predicate: `must be ...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| format!("must be a power of two from 1 to {}", Self::MAX))
    }

    fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= Self::MAX).then_some(Self(count))
    }

    /// Returns all possible numbers of partitions, in ascending order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX.ilog2()).map(|power| Self(1 << power))
    }

    /// Returns the numbers of the partitions.
    pub(super) fn numbers(self) -> std::ops::Range<u16> {
        0..self.0
    }

    /// Returns the number.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.into()
    }

    /// Returns the number with its noun: `1 partition`, `8 partitions`.
    #[must_use]
    pub fn in_words(self) -> String {
        format!("{self} partition{}", if self == Self::ONE { "" } else { "s" })
    }

    /// Returns the number of the partition, from 0, of a user with this [`hash`].
    #[must_use]
    pub(crate) fn of(self, hash: u64) -> u16 {
        // The remainder of the division by a power of two.
        (hash & u64::from(self.0 - 1)).try_into().expect("it is less than 1,024")
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the hash of a user's id, which decides the partition:
/// [XXH64](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) of the id's bytes with seed 0.
///
/// The function must never change. Otherwise a user's old visits stay in one partition, new ones go to another, and the
/// user counts twice.
pub(crate) fn hash(user_id: &str) -> u64 {
    xxh64(user_id.as_bytes(), 0)
}

/// A partition. Its tag makes all of its keys share a slot, so that a cluster keeps them on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    tag_prefix: Option<char>,
    number: u16,
    /// The maximum number of members of a segment in this partition; `None` if segments keep all members.
    bound: Option<u32>,
}

impl Partition {
    /// The possible first letters of tags.
    pub(super) const TAG_PREFIXES: [char; 2] = ['p', 'q'];

    /// Returns a partition of a key set.
    pub(super) fn new(tag_prefix: Option<char>, number: u16, bound: Option<u32>) -> Self {
        Self { tag_prefix, number, bound }
    }

    /// Returns the first partition for each letter. It exists regardless of the number of partitions.
    pub(super) fn initial_partitions() -> impl Iterator<Item = Self> {
        Self::TAG_PREFIXES.into_iter().map(|tag_prefix| Self::new(Some(tag_prefix), 0, None))
    }

    /// Returns the maximum number of members of a segment in this partition; `None` if segments keep all members.
    #[must_use]
    pub fn bound(self) -> Option<u32> {
        self.bound
    }

    /// Returns the keys of each segment: one for each level if segments are bounded, otherwise one for all members.
    pub fn segment_keys(self) -> impl ExactSizeIterator<Item = SegmentKey> + Clone {
        let keys = if self.bound.is_some() { Level::all().len() } else { 1 };
        (0..keys).map(move |index| {
            let level = u8::try_from(index).ok().filter(|_| self.bound.is_some()).and_then(Level::from_number);
            SegmentKey { partition: self, level }
        })
    }

    /// Returns the key of each segment that contains the user.
    pub(super) fn key_of(self, user_id: &str) -> SegmentKey {
        SegmentKey { partition: self, level: self.bound.map(|_| Level::of(user_id)) }
    }

    /// Returns the slot of its keys in a cluster.
    pub(super) fn slot(self) -> Slot {
        match self.tag_prefix {
            // Keys without a tag share no slot. A cluster never has them.
            None => Slot(0),
            Some(tag_prefix) => Slot::of_key(&format!("{tag_prefix}{:02}", self.number)),
        }
    }

    /// Whether a key set of `partitions` contains its number.
    pub(super) fn is_below(self, partitions: Partitions) -> bool {
        self.number < partitions.0
    }

    /// Returns a pattern of its keys, without a prefix, that matches the keys of all partitions with the same letter.
    pub(super) fn pattern(self) -> String {
        self.tag_prefix.map_or_else(|| "segment:*".to_owned(), |tag_prefix| format!("{{{tag_prefix}*}}:*"))
    }

    /// Whether its keys have a tag.
    pub(super) fn is_tagged(self) -> bool {
        self.tag_prefix.is_some()
    }

    pub(super) fn number(self) -> u16 {
        self.number
    }

    pub(super) fn tag_prefix(self) -> Option<char> {
        self.tag_prefix
    }

    /// Parses a tag without its braces.
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        let tag_prefix = tag.chars().next().filter(|tag_prefix| Self::TAG_PREFIXES.contains(tag_prefix))?;
        let number = tag.get(1..)?.parse().ok().filter(|number| *number < Partitions::MAX)?;
        let partition = Self::new(Some(tag_prefix), number, None);
        (partition.to_string() == format!("{{{tag}}}")).then_some(partition)
    }

    /// Returns the partitions of all possible key sets.
    pub(super) fn every() -> impl Iterator<Item = Self> {
        let tag_prefixes = Self::TAG_PREFIXES.into_iter().map(Some);
        tag_prefixes.flat_map(|tag_prefix| (0..Partitions::MAX).map(move |number| Self::new(tag_prefix, number, None)))
    }
}

/// One of the keys of each segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// The partition of its members.
    pub partition: Partition,
    /// The level of its members; `None` if segments are not bounded.
    pub level: Option<Level>,
}

/// Formats its tag with the braces, as in keys: `{p07}`. Without a tag, the text is empty.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag_prefix {
            None => Ok(()),
            Some(tag_prefix) => write!(f, "{{{tag_prefix}{:02}}}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("", 0xEF46_DB37_51D8_E999)]
    #[case::short("u104010", 0xCD9E_242F_893C_C22D)]
    #[case::long(&"кино".repeat(10), 0x66A3_BED4_354C_6965)]
    fn hash_agrees_with_the_reference_implementation(#[case] user_id: &str, #[case] expected: u64) {
        assert_eq!(hash(user_id), expected, "{:#X}", hash(user_id));
    }

    #[rstest]
    #[case::one("1", true)]
    #[case::cluster_default("64", true)]
    #[case::max("1024", true)]
    #[case::zero("0", false)]
    #[case::not_a_power_of_two("3", false)]
    #[case::too_many("2048", false)]
    #[case::negative("-2", false)]
    #[case::not_a_number("many", false)]
    fn parse_accepts_powers_of_two(#[case] text: &str, #[case] is_valid: bool) {
        assert_eq!(Partitions::parse(text).is_ok(), is_valid);
    }

    #[test]
    fn slots_spread_partitions_over_the_primaries_of_a_cluster() {
        let max = |count: u16, primaries: usize| {
            let mut spread = vec![0; primaries];
            for number in 0..count {
                let slot = Partition::new(Some('p'), number, None).slot();
                spread[usize::from(slot.0) * primaries / usize::from(Slot::COUNT)] += 1;
            }
            spread.into_iter().max().unwrap()
        };
        assert_eq!((max(64, 3), max(64, 4), max(256, 3)), (24, 16, 89));
    }

    #[test]
    fn segment_has_a_key_for_each_level_only_if_it_is_bounded() {
        let [exact, bounded] = [None, Some(1_024)].map(|bound| Partition::new(None, 0, bound));
        let levels = |partition: Partition| partition.segment_keys().map(|key| key.level).collect::<Vec<_>>();
        assert_eq!(levels(exact), [None]);
        assert_eq!(levels(bounded), Level::all().map(Some).collect::<Vec<_>>());
        assert!([exact, bounded].iter().all(|each| each.segment_keys().any(|key| key == each.key_of("u1"))));
    }
}
