//! Partitions: the assignment of users to them, and the tags of their keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

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

/// A complete set of keys: the number of partitions and the first letter of their tags.
///
/// The layout record contains it as text: `plain` for one partition, otherwise the letter and the number of partitions,
/// such as `p64`. A resharding alternates between the letters `p` and `q`, so that the old and the new set never share
/// a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeySet {
    partitions: Partitions,
    /// The first letter of the tags; `None` for one partition, whose keys have no tag.
    tag_prefix: Option<char>,
}

impl KeySet {
    const TAG_PREFIXES: [char; 2] = ['p', 'q'];

    /// Returns the key set of a new data set.
    #[must_use]
    pub fn first(partitions: Partitions) -> Self {
        let tag_prefix = (partitions != Partitions::ONE).then_some(Self::TAG_PREFIXES[0]);
        Self { partitions, tag_prefix }
    }

    /// Returns a key set of `partitions` that shares no key with this one.
    #[must_use]
    pub fn sibling(self, partitions: Partitions) -> Self {
        let [p, q] = Self::TAG_PREFIXES;
        let tag_prefix = if self.tag_prefix == Some(p) { q } else { p };
        Self { tag_prefix: (partitions != Partitions::ONE).then_some(tag_prefix), partitions }
    }

    /// Returns the number of partitions.
    #[must_use]
    pub fn partitions(self) -> Partitions {
        self.partitions
    }

    /// Returns the key sets that contain all of `partitions` with the same letter, and that assign each of `users` to
    /// the partition it was found in. Users are given by hash; up to `max_stray_percent` of them may be in a wrong
    /// partition.
    pub(super) fn fitting(
        partitions: &[Partition],
        users: &[(Partition, u64)],
        max_stray_percent: usize,
    ) -> impl Iterator<Item = Self> {
        let counts = (1..).map(|power| 1 << power).take_while(|count| *count <= Partitions::MAX).map(Partitions);
        let sets = Self::TAG_PREFIXES.into_iter().flat_map(move |tag_prefix| {
            counts.clone().map(move |partitions| Self { partitions, tag_prefix: Some(tag_prefix) })
        });
        sets.filter(move |keys| {
            let mut own = partitions.iter().filter(|partition| partition.tag_prefix == keys.tag_prefix).peekable();
            let (mut fitting, mut strays) = (0, 0);
            for (partition, hash) in users.iter().filter(|(partition, _)| partition.tag_prefix == keys.tag_prefix) {
                *if keys.of(*hash) == *partition { &mut fitting } else { &mut strays } += 1;
            }
            own.peek().is_some()
                && own.all(|partition| partition.number < keys.partitions.0)
                && 100 * strays <= max_stray_percent * (fitting + strays)
        })
    }

    /// Whether `partition` belongs to this key set.
    pub(super) fn has(self, partition: Partition) -> bool {
        partition.tag_prefix == self.tag_prefix && partition.number < self.partitions.0
    }

    /// Whether the tag of `partition` begins with the same letter. Its number may be too high for this set.
    pub(super) fn is_tagged_as(self, partition: Partition) -> bool {
        partition.tag_prefix == self.tag_prefix
    }

    /// Returns the partition of a user with this [`hash`].
    #[must_use]
    pub(crate) fn of(self, hash: u64) -> Partition {
        Partition { tag_prefix: self.tag_prefix, number: self.partitions.of(hash) }
    }

    /// Returns all partitions.
    #[must_use]
    pub fn all(self) -> impl ExactSizeIterator<Item = Partition> {
        (0..self.partitions.0).map(move |number| Partition { tag_prefix: self.tag_prefix, number })
    }
}

impl fmt::Display for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag_prefix {
            None => f.write_str("plain"),
            Some(tag_prefix) => write!(f, "{tag_prefix}{}", self.partitions),
        }
    }
}

impl From<KeySet> for String {
    fn from(key_set: KeySet) -> Self {
        key_set.to_string()
    }
}

impl TryFrom<String> for KeySet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "plain" {
            return Ok(Self::first(Partitions::ONE));
        }
        let (tag_prefix, count) = text.split_at_checked(1).unwrap_or_default();
        let tag_prefix = Self::TAG_PREFIXES.into_iter().find(|known| tag_prefix == known.to_string());
        let partitions = Partitions::parse(count).ok().filter(|partitions| *partitions != Partitions::ONE);
        match (tag_prefix, partitions) {
            (Some(tag_prefix), Some(partitions)) => Ok(Self { partitions, tag_prefix: Some(tag_prefix) }),
            _ => Err(format!("unknown key set {text:?}")),
        }
    }
}

/// A partition. Its tag makes all of its keys share a slot, so that a cluster keeps them on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    tag_prefix: Option<char>,
    number: u16,
}

impl Partition {
    /// Returns the first partition for each letter. It exists regardless of the number of partitions.
    pub(super) fn initial_partitions() -> impl Iterator<Item = Self> {
        KeySet::TAG_PREFIXES.into_iter().map(|tag_prefix| Self { tag_prefix: Some(tag_prefix), number: 0 })
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

    /// Parses a tag without its braces.
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        let tag_prefix = tag.chars().next().filter(|tag_prefix| KeySet::TAG_PREFIXES.contains(tag_prefix))?;
        let number = tag.get(1..)?.parse().ok().filter(|number| *number < Partitions::MAX)?;
        let partition = Self { tag_prefix: Some(tag_prefix), number };
        (partition.to_string() == format!("{{{tag}}}")).then_some(partition)
    }

    /// Returns the partitions of all possible key sets.
    pub(super) fn every() -> impl Iterator<Item = Self> {
        let tag_prefixes = KeySet::TAG_PREFIXES.into_iter().map(Some);
        tag_prefixes.flat_map(|tag_prefix| (0..Partitions::MAX).map(move |number| Self { tag_prefix, number }))
    }
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

    fn partitions(count: u16) -> Partitions {
        Partitions::new(count).unwrap()
    }

    #[rstest]
    #[case::empty("", 0xEF46_DB37_51D8_E999)]
    #[case::short("u104010", 0xCD9E_242F_893C_C22D)]
    #[case::long(&"кино".repeat(10), 0x66A3_BED4_354C_6965)]
    fn hash_agrees_with_the_reference_implementation(#[case] user_id: &str, #[case] expected: u64) {
        assert_eq!(hash(user_id), expected, "{:#X}", hash(user_id));
    }

    #[test]
    fn sibling_shares_no_key() {
        for from in [1, 2, 1_024] {
            for to in [1, 2, 1_024].into_iter().filter(|to| (from, *to) != (1, 1)) {
                let mut key_set = KeySet::first(partitions(from));
                for _ in 0..2 {
                    let next = key_set.sibling(partitions(to));
                    assert_ne!(key_set.tag_prefix, next.tag_prefix, "{key_set} {next}");
                    key_set = if to == 1 { next.sibling(partitions(from)) } else { next };
                }
            }
        }
    }

    #[rstest]
    #[case::plain("plain", true)]
    #[case::min("p2", true)]
    #[case::max("q1024", true)]
    #[case::tagged_one("p1", false)]
    #[case::unknown_letter("r2", false)]
    #[case::not_a_power_of_two("p3", false)]
    #[case::too_many("p2048", false)]
    #[case::empty("", false)]
    #[case::not_ascii("é2", false)]
    fn key_set_round_trips_as_text(#[case] text: &str, #[case] is_valid: bool) {
        let key_set = KeySet::try_from(text.to_owned());
        assert_eq!(key_set.is_ok(), is_valid);
        assert!(key_set.is_err() || key_set.unwrap().to_string() == text);
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

    /// The numbers of users stay within a few standard deviations, although the ids differ in few digits.
    #[test]
    fn hash_splits_users_evenly() {
        let key_set = KeySet::first(partitions(64));
        let mut users = [0_u32; 64];
        for user in 0..64_000 {
            users[usize::from(key_set.of(hash(&format!("u{user}"))).number)] += 1;
        }
        assert!(users.iter().all(|users| (850..1_150).contains(users)), "{users:?}");
    }

    #[test]
    fn slots_spread_partitions_over_the_primaries_of_a_cluster() {
        let max = |count, primaries: usize| {
            let mut spread = vec![0; primaries];
            for partition in KeySet::first(partitions(count)).all() {
                spread[usize::from(partition.slot().0) * primaries / usize::from(Slot::COUNT)] += 1;
            }
            spread.into_iter().max().unwrap()
        };
        assert_eq!((max(64, 3), max(64, 4), max(256, 3)), (24, 16, 89));
    }
}
