//! Key sets: the partitions of a data set, the letter of their tags, and how many members a segment keeps.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::partition::{Partition, Partitions, SegmentKey};
use super::sampling::max_members::MaxMembers;

/// A complete set of keys: the number of partitions, the first letter of their tags, and the bound on a segment's
/// members.
///
/// The layout record contains it as text: `plain` for one partition, otherwise the letter and the number of partitions,
/// such as `p64`. If segments are bounded, `@` and the bound follow: `p64@65536`. A resharding alternates between the
/// letters `p` and `q`, so that the old and the new set never share a key. A plain set becomes `p1` if only its bound
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeySet {
    partitions: Partitions,
    /// The first letter of the tags; `None` for the keys of one partition without a tag.
    tag_prefix: Option<char>,
    /// The maximum number of members of a segment; `None` if segments keep all members.
    max_members: Option<MaxMembers>,
}

impl KeySet {
    /// Returns the key set of a new data set.
    #[must_use]
    pub fn first(partitions: Partitions, max_members: Option<MaxMembers>) -> Self {
        let tag_prefix = (partitions != Partitions::ONE).then_some(Partition::TAG_PREFIXES[0]);
        Self { partitions, tag_prefix, max_members }
    }

    /// Returns the key set of one partition without a tag, in which segments keep all members.
    #[must_use]
    pub fn plain() -> Self {
        Self::first(Partitions::ONE, None)
    }

    /// Returns a key set of `partitions` and `max_members` that shares no key with this one.
    #[must_use]
    pub fn sibling(self, partitions: Partitions, max_members: Option<MaxMembers>) -> Self {
        let [p, q] = Partition::TAG_PREFIXES;
        let tag_prefix = if self.tag_prefix == Some(p) { q } else { p };
        let is_plain = partitions == Partitions::ONE && self.tag_prefix.is_some();
        Self { tag_prefix: (!is_plain).then_some(tag_prefix), partitions, max_members }
    }

    /// Returns the number of partitions.
    #[must_use]
    pub fn partitions(self) -> Partitions {
        self.partitions
    }

    /// Returns the maximum number of members of a segment, in all partitions together; `None` if segments keep all
    /// members.
    #[must_use]
    pub fn max_members(self) -> Option<MaxMembers> {
        self.max_members
    }

    /// Returns the number of partitions and the maximum number of members with their nouns: `8 partitions`, or `8
    /// partitions and up to 65536 members in a segment`.
    #[must_use]
    pub fn in_words(self) -> String {
        let max_members =
            self.max_members.map_or_else(String::new, |max| format!(" and up to {max} members in a segment"));
        self.partitions.in_words() + &max_members
    }

    /// Whether the keys have no tag.
    pub(super) fn is_plain(self) -> bool {
        self.tag_prefix.is_none()
    }

    /// Returns the key sets that contain all of `partitions` with the same letter, and that assign each of `users` to
    /// the partition it was found in. Users are given by hash; up to `max_stray_percent` of them may be in a wrong
    /// partition.
    pub(super) fn fitting(
        partitions: &[Partition],
        users: &[(Partition, u64)],
        max_stray_percent: usize,
    ) -> impl Iterator<Item = Self> {
        let sets = Partition::TAG_PREFIXES.into_iter().flat_map(move |tag_prefix| {
            Partitions::all().map(move |partitions| Self {
                partitions,
                tag_prefix: Some(tag_prefix),
                max_members: None,
            })
        });
        sets.filter(move |keys| {
            let mut own = partitions.iter().filter(|partition| keys.is_tagged_as(**partition)).peekable();
            let (mut fitting, mut strays) = (0, 0);
            for (partition, hash) in users.iter().filter(|(partition, _)| keys.is_tagged_as(*partition)) {
                *if keys.of(*hash) == *partition { &mut fitting } else { &mut strays } += 1;
            }
            own.peek().is_some()
                && own.all(|partition| partition.is_below(keys.partitions))
                && 100 * strays <= max_stray_percent * (fitting + strays)
        })
    }

    /// Returns `partition` as one of this key set, which decides its bound.
    pub(super) fn own(self, partition: Partition) -> Partition {
        self.partition(partition.number())
    }

    /// Whether `partition` belongs to this key set.
    pub(super) fn has(self, partition: Partition) -> bool {
        self.is_tagged_as(partition) && partition.is_below(self.partitions)
    }

    /// Whether the tag of `partition` begins with the same letter. Its number may be too high for this set.
    pub(super) fn is_tagged_as(self, partition: Partition) -> bool {
        partition.tag_prefix() == self.tag_prefix
    }

    /// Returns the partition of a user with this [`hash`](super::partition::hash).
    #[must_use]
    pub(crate) fn of(self, hash: u64) -> Partition {
        self.partition(self.partitions.of(hash))
    }

    /// Returns all partitions.
    #[must_use]
    pub fn all(self) -> impl ExactSizeIterator<Item = Partition> {
        self.partitions.numbers().map(move |number| self.partition(number))
    }

    /// Returns the keys of each segment in all partitions.
    pub fn segment_keys(self) -> impl Iterator<Item = SegmentKey> {
        self.all().flat_map(Partition::segment_keys)
    }

    fn partition(self, number: u16) -> Partition {
        let bound = self.max_members.map(|max_members| max_members.per_partition(self.partitions));
        Partition::new(self.tag_prefix, number, bound)
    }
}

impl fmt::Display for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag_prefix {
            None => f.write_str("plain")?,
            Some(tag_prefix) => write!(f, "{tag_prefix}{}", self.partitions)?,
        }
        self.max_members.map_or(Ok(()), |max_members| write!(f, "@{max_members}"))
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
        let unknown = || format!("unknown key set {text:?}");
        let (keys, max_members) = match text.split_once('@') {
            Some((keys, max_members)) => (keys, Some(MaxMembers::parse(max_members).map_err(|_| unknown())?)),
            None => (&*text, None),
        };
        if keys == "plain" {
            return Ok(Self::first(Partitions::ONE, max_members));
        }
        let (tag_prefix, count) = keys.split_at_checked(1).unwrap_or_default();
        let tag_prefix = Partition::TAG_PREFIXES.into_iter().find(|known| tag_prefix == known.to_string());
        match (tag_prefix, Partitions::parse(count)) {
            (Some(tag_prefix), Ok(partitions)) => Ok(Self { partitions, tag_prefix: Some(tag_prefix), max_members }),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Level;
    use crate::store::partition::hash;

    fn partitions(count: u16) -> Partitions {
        Partitions::parse(&count.to_string()).unwrap()
    }

    #[test]
    fn sibling_shares_no_key() {
        let bound = MaxMembers::parse("1024").unwrap();
        for from in [1, 2, 1_024] {
            for to in [1, 2, 1_024] {
                let mut key_set = KeySet::first(partitions(from), None);
                for max_members in [Some(bound), None, Some(bound)] {
                    let next = key_set.sibling(partitions(to), max_members);
                    assert_ne!(key_set.tag_prefix, next.tag_prefix, "{key_set} {next}");
                    assert_eq!(next.max_members(), max_members);
                    key_set = next;
                }
            }
        }
        assert_eq!(KeySet::plain().sibling(Partitions::ONE, Some(bound)).to_string(), "p1@1024");
        assert_eq!(KeySet::first(partitions(8), None).sibling(Partitions::ONE, None).to_string(), "plain");
    }

    #[rstest]
    #[case::plain("plain", true)]
    #[case::min("p2", true)]
    #[case::max("q1024", true)]
    #[case::tagged_one("p1", true)]
    #[case::plain_and_bounded("plain@1024", true)]
    #[case::bounded("p64@65536", true)]
    #[case::bound_not_a_power_of_two("p64@65537", false)]
    #[case::bound_too_small("p64@512", false)]
    #[case::no_bound("p64@", false)]
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

    /// A partition that had more users of high levels than others would keep another share of its users at each depth.
    #[test]
    fn level_is_independent_of_the_partition() {
        const USERS: u32 = 200_000;
        let key_set = KeySet::first(partitions(16), None);
        let mut users = [[0_u32; 4]; 16];
        for user in (0..USERS).map(|user| format!("u{user}")) {
            let level = usize::from(Level::of(&user).number()).min(3);
            users[usize::from(key_set.of(hash(&user)).number())][level] += 1;
        }
        // Levels 0, 1 and 2, and all others.
        for (partition, levels) in users.iter().enumerate() {
            for (found, share) in levels.iter().zip([0.5, 0.25, 0.125, 0.125]) {
                let expected = f64::from(USERS) / 16.0 * share;
                assert!((f64::from(*found) - expected).abs() < 5.0 * expected.sqrt(), "{partition}: {levels:?}");
            }
        }
    }

    /// The numbers of users stay within a few standard deviations, although the ids differ in few digits.
    #[test]
    fn hash_splits_users_evenly() {
        let key_set = KeySet::first(partitions(64), None);
        let mut users = [0_u32; 64];
        for user in 0..64_000 {
            users[usize::from(key_set.of(hash(&format!("u{user}"))).number())] += 1;
        }
        assert!(users.iter().all(|users| (850..1_150).contains(users)), "{users:?}");
    }
}
