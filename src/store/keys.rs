//! Which partition a user is in, and what the keys of a partition are called.

use std::fmt;

use redis::Cmd;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

use crate::domain::Timestamp;
use crate::redis::Slot;

/// How many partitions the users are split into: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partitions {
    /// All users in one: what fits one server.
    pub const ONE: Self = Self(1);
    /// What a cluster begins with. With 64, the fullest of three masters has 13 % more than its share and the fullest of four
    /// has just its share; more partitions are spread more evenly, and make counts dearer.
    pub const OF_A_CLUSTER: Self = Self(64);
    /// The most.
    pub const MAX: u16 = 1_024;

    /// Reads a number of partitions.
    ///
    /// # Errors
    ///
    /// A sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| format!("must be a power of two from 1 to {}", Self::MAX))
    }

    fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= Self::MAX).then_some(Self(count))
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.into()
    }

    /// As in a sentence: `1 partition`, `8 partitions`.
    #[must_use]
    pub fn in_words(self) -> String {
        format!("{self} partition{}", if self == Self::ONE { "" } else { "s" })
    }

    /// The partition, counted from 0, of a user whose [`hash`] is this.
    #[must_use]
    pub(crate) fn of(self, hash: u64) -> u16 {
        // The remainder of the division by a power of two: its last bits.
        (hash & u64::from(self.0 - 1)).try_into().expect("it is less than 1,024")
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What decides the partition of a user: [XXH64](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) of the id's
/// bytes, with seed 0. It must never change: who is looked for in another partition is not found, and is counted twice.
pub(crate) fn hash(user_id: &str) -> u64 {
    xxh64(user_id.as_bytes(), 0)
}

/// A complete set of keys: how many partitions there are, and what their keys begin with.
///
/// As text, and so as recorded, it is `plain` for one partition, and else a tag_prefix and the number of partitions, `p64`. When
/// data moves to another number of partitions the letters `p` and `q` take turns, so that old and new never share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeySet {
    partitions: Partitions,
    /// None of one partition, whose keys begin with nothing.
    tag_prefix: Option<char>,
}

impl KeySet {
    const TAG_PREFIXES: [char; 2] = ['p', 'q'];

    /// The first keys of a data set with so many partitions.
    #[must_use]
    pub fn first(partitions: Partitions) -> Self {
        let tag_prefix = (partitions != Partitions::ONE).then_some(Self::TAG_PREFIXES[0]);
        Self { partitions, tag_prefix }
    }

    /// Keys that none of these are, with so many partitions.
    #[must_use]
    pub fn sibling(self, partitions: Partitions) -> Self {
        let [p, q] = Self::TAG_PREFIXES;
        let tag_prefix = if self.tag_prefix == Some(p) { q } else { p };
        Self { tag_prefix: (partitions != Partitions::ONE).then_some(tag_prefix), partitions }
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(self) -> Partitions {
        self.partitions
    }

    /// The sets of keys that have all of `partitions`, and each of `users`, by its hash, in the partition where it was found. Up to
    /// `max_strays` of a hundred may be in another. Partitions of other letters are of another set.
    pub(super) fn fitting(
        partitions: &[Partition],
        users: &[(Partition, u64)],
        max_strays: usize,
    ) -> impl Iterator<Item = Self> {
        let counts = (1..).map(|power| 1 << power).take_while(|count| *count <= Partitions::MAX).map(Partitions);
        let sets = Self::TAG_PREFIXES.into_iter().flat_map(move |tag_prefix| {
            counts.clone().map(move |partitions| Self { partitions, tag_prefix: Some(tag_prefix) })
        });
        sets.filter(move |keys| {
            let mut own = partitions.iter().filter(|partition| partition.tag_prefix == keys.tag_prefix).peekable();
            let (mut here, mut elsewhere) = (0, 0);
            for (partition, hash) in users.iter().filter(|(partition, _)| partition.tag_prefix == keys.tag_prefix) {
                *if keys.of(*hash) == *partition { &mut here } else { &mut elsewhere } += 1;
            }
            own.peek().is_some()
                && own.all(|partition| partition.number < keys.partitions.0)
                && 100 * elsewhere <= max_strays * (here + elsewhere)
        })
    }

    /// Whether `partition` is one of these.
    pub(super) fn has(self, partition: Partition) -> bool {
        partition.tag_prefix == self.tag_prefix && partition.number < self.partitions.0
    }

    /// Whether the keys of `partition` begin like these, whatever its number is.
    pub(super) fn is_tagged_as(self, partition: Partition) -> bool {
        partition.tag_prefix == self.tag_prefix
    }

    /// The partition of a user whose [`hash`] is this.
    #[must_use]
    pub(crate) fn of(self, hash: u64) -> Partition {
        Partition { tag_prefix: self.tag_prefix, number: self.partitions.of(hash) }
    }

    /// All partitions.
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
            _ => Err(format!("{text:?} is no set of keys that this version knows")),
        }
    }
}

/// One partition, and its keys. In a cluster they are all on one server, for the braces make them share a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    tag_prefix: Option<char>,
    number: u16,
}

impl Partition {
    /// The partitions that there are whatever their number is, for each tag_prefix.
    pub(super) fn initial_partitions() -> impl Iterator<Item = Self> {
        KeySet::TAG_PREFIXES.into_iter().map(|tag_prefix| Self { tag_prefix: Some(tag_prefix), number: 0 })
    }

    /// Where its keys are in a cluster.
    pub(super) fn slot(self) -> Slot {
        match self.tag_prefix {
            // Without braces the keys share no slot; a cluster needs more than one partition.
            None => Slot(0),
            Some(tag_prefix) => Slot::of_key(&format!("{tag_prefix}{:02}", self.number)),
        }
    }

    /// Whether there is such a partition of so many.
    pub(super) fn is_below(self, partitions: Partitions) -> bool {
        self.number < partitions.0
    }

    pub(super) fn number(self) -> u16 {
        self.number
    }

    /// The partition whose keys have `tag` in their braces.
    fn of_tag(tag: &str) -> Option<Self> {
        let tag_prefix = tag.chars().next().filter(|tag_prefix| KeySet::TAG_PREFIXES.contains(tag_prefix))?;
        let number = tag.get(1..)?.parse().ok().filter(|number| *number < Partitions::MAX)?;
        let partition = Self { tag_prefix: Some(tag_prefix), number };
        (partition.to_string() == format!("{{{tag}}}")).then_some(partition)
    }

    /// Every partition that some number of partitions has.
    pub(super) fn every() -> impl Iterator<Item = Self> {
        let letters = KeySet::TAG_PREFIXES.into_iter().map(Some);
        letters.flat_map(|tag_prefix| (0..Partitions::MAX).map(move |number| Self { tag_prefix, number }))
    }
}

/// A key whose name is that of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnKey {
    pub(super) key: String,
    pub(super) kind: KeyKind,
    /// The partition that it is in; that of one partition if the key has no braces.
    pub(super) partition: Partition,
}

/// What a key of a data set is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// The members of the segment of this name.
    Segment(String),
    /// The names of segments.
    Index,
    /// Users who were removed while data moves.
    Tombstones,
    /// The record of the layout, or a copy.
    Layout,
    /// The history of a segment; without a name, the turns of sampling.
    History,
}

/// As it stands in keys: `{p07}`.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag_prefix {
            None => Ok(()),
            Some(tag_prefix) => write!(f, "{{{tag_prefix}{:02}}}", self.number),
        }
    }
}

/// What all keys of a data set begin with, so that it shares a database with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPrefix(Box<str>);

impl KeyPrefix {
    const MAX_BYTES: usize = 64;
    /// The kinds of keys whose names end in a segment's.
    const OPEN_KINDS: [&str; 2] = ["segment:", "history:"];

    /// Reads a prefix; an empty text is none.
    ///
    /// # Errors
    ///
    /// A sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            return Err(format!("must not be longer than {} bytes", Self::MAX_BYTES));
        }
        if text.contains(['{', '}']) {
            return Err("must not contain braces: they decide where a cluster keeps a key".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters".to_owned());
        }
        if let Some(kind) = Self::OPEN_KINDS.into_iter().find(|kind| text.starts_with(kind)) {
            return Err(format!("must not begin with {kind}, as keys without a prefix do"));
        }
        Ok(Self(text.into()))
    }

    /// The prefix as it stands in keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of all keys of a data set.
#[derive(Debug, Default)]
pub(super) struct KeyNames {
    prefix: KeyPrefix,
}

impl KeyNames {
    pub(super) fn new(prefix: KeyPrefix) -> Self {
        Self { prefix }
    }

    pub(super) fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// The sorted set of a segment's members.
    pub(super) fn segment(&self, partition: Partition, segment: &str) -> String {
        self.of_partition(partition, "segment:", segment)
    }

    /// The sorted set of segment names.
    pub(super) fn index(&self, partition: Partition) -> String {
        self.of_partition(partition, "segments", "")
    }

    /// A partition's copy of the record of the layout.
    pub(super) fn layout_of(&self, partition: Partition) -> String {
        self.of_partition(partition, "layout", "")
    }

    /// Request that read the record of the layout in each of `partitions`.
    pub(super) fn layout_reads(
        &self,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> impl Iterator<Item = (Slot, Cmd)> {
        partitions.into_iter().map(|partition| {
            let mut command = redis::cmd("GET");
            command.arg(self.layout_of(partition));
            (partition.slot(), command)
        })
    }

    /// The sorted set of users who were removed while data moves here.
    pub(super) fn tombstones(&self, partition: Partition) -> String {
        self.of_partition(partition, "forgotten", "")
    }

    /// The record of the layout.
    pub(super) fn layout(&self) -> String {
        self.plain("layout", "")
    }

    /// The history of a segment: a list or a stream of its sizes over time. It belongs to no partition.
    pub(super) fn history(&self, segment: &str) -> String {
        self.plain("history:", segment)
    }

    /// The key that tells how far the turns of sampling are. No segment has an empty name.
    pub(super) fn lease(&self) -> String {
        self.history("")
    }

    /// A pattern of `SCAN` and of an ACL: the prefix as it is, and `rest`, which may have special characters.
    pub(super) fn pattern(&self, rest: &str) -> String {
        let mut pattern = String::with_capacity(self.prefix.0.len() + rest.len());
        for char in self.prefix.0.chars() {
            if r"*?[]\".contains(char) {
                pattern.push('\\');
            }
            pattern.push(char);
        }
        pattern + rest
    }

    /// A pattern of the keys of `partition` and of all partitions that are tagged alike.
    pub(super) fn pattern_like(&self, partition: Partition) -> String {
        let rest = partition.tag_prefix.map_or_else(|| "segment:*".to_owned(), |letter| format!("{{{letter}*}}:*"));
        self.pattern(&rest)
    }

    /// A pattern of `SCAN` that matches all keys of which [`Self::read`] gives something, and few others.
    pub(super) fn own(&self) -> String {
        self.pattern("[shfl{][eioapq][gsry0-9]*")
    }

    /// What the name of a key says, if it is that of a data set.
    pub(super) fn read(&self, key: String) -> Option<OwnKey> {
        let rest = key.strip_prefix(&*self.prefix.0)?;
        let (partition, rest) = match rest.strip_prefix('{') {
            None => (KeySet::first(Partitions::ONE).of(0), rest),
            Some(tag) => {
                let (tag, rest) = tag.split_once("}:")?;
                (Partition::of_tag(tag)?, rest)
            }
        };
        let kind = match rest.split_once(':') {
            Some(("segment", name)) => KeyKind::Segment(name.to_owned()),
            Some(("history", _)) if partition.tag_prefix.is_none() => KeyKind::History,
            None if rest == "segments" => KeyKind::Index,
            None if rest == "forgotten" => KeyKind::Tombstones,
            None if rest == "layout" => KeyKind::Layout,
            _ => return None,
        };
        Some(OwnKey { key, kind, partition })
    }

    fn of_partition(&self, partition: Partition, kind: &str, rest: &str) -> String {
        match partition.tag_prefix {
            None => self.plain(kind, rest),
            Some(_) => format!("{}{partition}:{kind}{rest}", self.prefix.0),
        }
    }

    fn plain(&self, kind: &str, rest: &str) -> String {
        [&self.prefix.0, kind, rest].concat()
    }
}

/// The lower bound of the scores after `cutoff`.
pub(super) fn scores_after(cutoff: Timestamp) -> String {
    format!("({}", cutoff.as_score())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn partitions(count: u16) -> Partitions {
        Partitions::new(count).unwrap()
    }

    /// As the reference implementation has it.
    #[rstest]
    #[case("", 0xEF46_DB37_51D8_E999)]
    #[case("u104010", 0xCD9E_242F_893C_C22D)]
    #[case(&"кино".repeat(10), 0x66A3_BED4_354C_6965)]
    fn the_hash_never_changes(#[case] user_id: &str, #[case] expected: u64) {
        assert_eq!(hash(user_id), expected, "{:#X}", hash(user_id));
    }

    #[test]
    fn one_partition_has_plain_keys_and_several_have_theirs_in_braces() {
        let names = KeyNames::default();
        let keys = |key_set: KeySet| {
            let last = key_set.all().last().unwrap();
            [names.segment(last, "{x}:y"), names.index(last), names.layout_of(last)]
        };
        assert_eq!(keys(KeySet::first(Partitions::ONE)), ["segment:{x}:y", "segments", "layout"]);
        let eight = KeySet::first(partitions(8));
        assert_eq!(keys(eight), ["{p07}:segment:{x}:y", "{p07}:segments", "{p07}:layout"]);
        assert_eq!(keys(KeySet::first(partitions(1_024)))[1], "{p1023}:segments");
        assert_eq!(keys(eight.sibling(partitions(8)))[1], "{q07}:segments");
    }

    #[test]
    fn prefix_begins_every_key_and_moves_no_partition() {
        let names = KeyNames::new(KeyPrefix::parse("prod:").unwrap());
        let (plain, last) = (KeySet::first(Partitions::ONE).of(0), KeySet::first(partitions(8)).all().last().unwrap());
        assert_eq!([names.segment(plain, "x"), names.index(plain)], ["prod:segment:x", "prod:segments"]);
        assert_eq!(
            [names.segment(last, "x"), names.tombstones(last)],
            ["prod:{p07}:segment:x", "prod:{p07}:forgotten"]
        );
        assert_eq!(
            [names.layout(), names.history("x"), names.lease()],
            ["prod:layout", "prod:history:x", "prod:history:"]
        );
        for key in [names.segment(last, "{x}"), names.index(last), names.layout_of(last)] {
            assert_eq!(Slot::of_any_key(&key), last.slot(), "{key}");
        }
    }

    #[test]
    fn key_is_read_as_it_is_named() {
        for names in [KeyNames::default(), KeyNames::new(KeyPrefix::parse("prod:").unwrap())] {
            let read =
                |key: String| names.read(key.clone()).filter(|own| own.key == key).map(|own| (own.kind, own.partition));
            let plain = KeySet::first(Partitions::ONE).of(0);
            let first_of_many = KeySet::first(partitions(8)).of(0);
            for partition in [plain, first_of_many, Partition::every().last().unwrap()] {
                let expected = |kind| Some((kind, partition));
                let segment = names.segment(partition, "{p00}:segments");
                assert_eq!(read(segment), expected(KeyKind::Segment("{p00}:segments".to_owned())));
                assert_eq!(read(names.index(partition)), expected(KeyKind::Index));
                assert_eq!(read(names.tombstones(partition)), expected(KeyKind::Tombstones));
                assert_eq!(read(names.layout_of(partition)), expected(KeyKind::Layout));
            }
            assert_eq!(read(names.history("a:b")), Some((KeyKind::History, plain)));
            assert_eq!(read(names.lease()), Some((KeyKind::History, plain)));
            for other in ["segment", "segments:", "layouts", "{p0}:segments", "{p1024}:segments", "{r00}:segments"] {
                assert_eq!(read(names.plain(other, "")), None, "{other}");
            }
            assert_eq!(read(names.plain("{p00}:history:x", "")), None);
        }
    }

    #[test]
    fn pattern_matches_special_characters_of_the_prefix_as_they_are() {
        let names = KeyNames::new(KeyPrefix::parse(r"a*[b]?\c:").unwrap());
        assert_eq!(names.pattern("history:*"), r"a\*\[b\]\?\\c:history:*");
    }

    #[rstest]
    #[case::none("", true)]
    #[case::usual("prod:", true)]
    #[case::not_ascii("ё-", true)]
    #[case::longest(&"x".repeat(64), true)]
    #[case::too_long(&"x".repeat(65), false)]
    #[case::open_brace("a{b", false)]
    #[case::closed_brace("a}", false)]
    #[case::control("a\nb", false)]
    #[case::key_of_a_segment("segment:", false)]
    #[case::key_of_a_history("history:x", false)]
    fn prefix_is_refused_if_it_could_be_mistaken(#[case] text: &str, #[case] is_one: bool) {
        assert_eq!(KeyPrefix::parse(text).is_ok(), is_one);
    }

    #[test]
    fn old_and_new_keys_are_never_the_same() {
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
    #[case("plain", true)]
    #[case("p2", true)]
    #[case("q1024", true)]
    #[case("p1", false)]
    #[case("r2", false)]
    #[case("p3", false)]
    #[case("p2048", false)]
    #[case("", false)]
    #[case("é2", false)]
    fn key_set_is_read_as_it_is_written(#[case] text: &str, #[case] is_one: bool) {
        let key_set = KeySet::try_from(text.to_owned());
        assert_eq!(key_set.is_ok(), is_one);
        assert!(key_set.is_err() || key_set.unwrap().to_string() == text);
    }

    #[rstest]
    #[case("1", true)]
    #[case("64", true)]
    #[case("1024", true)]
    #[case("0", false)]
    #[case("3", false)]
    #[case("2048", false)]
    #[case("-2", false)]
    #[case("many", false)]
    fn only_powers_of_two_are_numbers_of_partitions(#[case] text: &str, #[case] is_one: bool) {
        assert_eq!(Partitions::parse(text).is_ok(), is_one);
    }

    /// An even split is what the hash is for: within a few standard deviations, also for ids that differ in one digit.
    #[test]
    fn users_are_split_evenly() {
        let key_set = KeySet::first(partitions(64));
        let mut users = [0_u32; 64];
        for user in 0..64_000 {
            users[usize::from(key_set.of(hash(&format!("u{user}"))).number)] += 1;
        }
        assert!(users.iter().all(|users| (850..1_150).contains(users)), "{users:?}");
    }

    #[test]
    fn partitions_are_spread_over_the_masters_of_a_cluster() {
        let max = |count, masters: usize| {
            let mut spread = vec![0; masters];
            for partition in KeySet::first(partitions(count)).all() {
                spread[usize::from(partition.slot().0) * masters / usize::from(Slot::COUNT)] += 1;
            }
            spread.into_iter().max().unwrap()
        };
        assert_eq!((max(64, 3), max(64, 4), max(256, 3)), (24, 16, 89));
    }
}
