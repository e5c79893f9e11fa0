//! The names of keys.

use ::redis::Cmd;

use super::key_prefix::KeyPrefix;
use super::key_set::KeySet;
use super::partition::{Partition, SegmentKey};
use crate::domain::{Level, Timestamp};
use crate::redis::Slot;

/// A key with a name that a data set uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnKey {
    pub(super) key: String,
    pub(super) kind: KeyKind,
    /// Its partition; the only one if the key has no tag.
    pub(super) partition: Partition,
}

/// The purpose of a key of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// The members of the segment with this name.
    Segment(String),
    /// The members of one level of the bounded segment with this name.
    SegmentLevel(Level, String),
    /// The names of segments.
    Index,
    /// The depths of segments.
    Depths,
    /// The tombstones of users and segments that were deleted during a resharding.
    Tombstones,
    /// The layout record, or the copy of a partition.
    Layout,
    /// The history of a segment; without a name, the lease on sampling.
    History,
    /// The change record of a segment.
    Change,
}

impl KeyKind {
    /// Whether it has members of a bounded segment. Depths alone are no evidence of a data set: another program may
    /// have such a key.
    pub(super) fn is_of_bounded_segments(&self) -> bool {
        matches!(self, Self::SegmentLevel(..))
    }
}

/// Names and recognizes the keys of a data set.
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

    /// Returns the key of the members of a segment that `key` has.
    pub(super) fn segment(&self, key: SegmentKey, segment: &str) -> String {
        match key.level {
            None => self.of_partition(key.partition, "segment:", segment),
            Some(level) => self.of_partition(key.partition, &format!("segment@{}:", level.number()), segment),
        }
    }

    /// Returns a pattern of the keys of all segments in `partition`, or the name of the keys of the segment `name`.
    pub(super) fn segments_like(&self, partition: Partition, name: &str) -> String {
        let kind = if partition.bound().is_some() { "segment@*:" } else { "segment:" };
        self.of_partition(partition, kind, name)
    }

    /// Returns the key of the segments' depths.
    pub(super) fn depths(&self, partition: Partition) -> String {
        self.of_partition(partition, "depths", "")
    }

    /// Returns the key of the index.
    pub(super) fn index(&self, partition: Partition) -> String {
        self.of_partition(partition, "segments", "")
    }

    /// Returns the key of a partition's copy of the layout record.
    pub(super) fn layout_of(&self, partition: Partition) -> String {
        self.of_partition(partition, "layout", "")
    }

    /// Returns commands that read the copies of the layout record in `partitions`.
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

    /// Returns the key of the tombstones.
    pub(super) fn tombstones(&self, partition: Partition) -> String {
        self.of_partition(partition, "forgotten", "")
    }

    /// Returns the key of the layout record.
    pub(super) fn layout(&self) -> String {
        self.plain("layout", "")
    }

    /// Returns the key of a segment's history, which belongs to no partition.
    pub(super) fn history(&self, segment: &str) -> String {
        self.plain("history:", segment)
    }

    /// Returns the key of the lease on sampling. No segment has an empty name.
    pub(super) fn lease(&self) -> String {
        self.history("")
    }

    /// Returns the key of a segment's change record. No segment has a name that begins with a space.
    pub(super) fn change(&self, segment: &str) -> String {
        self.plain("history: ", segment)
    }

    /// Returns a pattern for `SCAN` or an ACL: the escaped prefix, then the pattern `rest`.
    pub(super) fn pattern(&self, rest: &str) -> String {
        let mut pattern = String::with_capacity(self.prefix.as_str().len() + rest.len());
        for char in self.prefix.as_str().chars() {
            if r"*?[]\".contains(char) {
                pattern.push('\\');
            }
            pattern.push(char);
        }
        pattern + rest
    }

    /// Returns a pattern of the keys of `partition` and of all partitions with the same letter.
    pub(super) fn pattern_like(&self, partition: Partition) -> String {
        self.pattern(&partition.pattern())
    }

    /// Returns a pattern for `SCAN` that matches all keys that [`Self::read`] recognizes, and few others.
    pub(super) fn own(&self) -> String {
        self.pattern("[shfld{][eioapq][gsryp0-9]*")
    }

    /// Recognizes a key of the data set by its name.
    pub(super) fn read(&self, key: String) -> Option<OwnKey> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let (partition, rest) = match rest.strip_prefix('{') {
            None => (KeySet::plain().of(0), rest),
            Some(tag) => {
                let (tag, rest) = tag.split_once("}:")?;
                (Partition::from_tag(tag)?, rest)
            }
        };
        let kind = match rest.split_once(':') {
            Some(("segment", name)) => KeyKind::Segment(name.to_owned()),
            Some((kind, name)) if kind.starts_with("segment@") => {
                let number = kind.strip_prefix("segment@")?;
                let level =
                    Level::from_number(number.parse().ok()?).filter(|level| level.number().to_string() == number)?;
                KeyKind::SegmentLevel(level, name.to_owned())
            }
            Some(("history", name)) if !partition.is_tagged() => {
                if name.starts_with(' ') {
                    KeyKind::Change
                } else {
                    KeyKind::History
                }
            }
            None if rest == "segments" => KeyKind::Index,
            None if rest == "depths" => KeyKind::Depths,
            None if rest == "forgotten" => KeyKind::Tombstones,
            None if rest == "layout" => KeyKind::Layout,
            _ => return None,
        };
        Some(OwnKey { key, kind, partition })
    }

    fn of_partition(&self, partition: Partition, kind: &str, rest: &str) -> String {
        if partition.is_tagged() {
            format!("{}{partition}:{kind}{rest}", self.prefix.as_str())
        } else {
            self.plain(kind, rest)
        }
    }

    fn plain(&self, kind: &str, rest: &str) -> String {
        [self.prefix.as_str(), kind, rest].concat()
    }
}

/// Returns the lower bound of the scores after `cutoff`, as an argument of a command.
pub(super) fn scores_after(cutoff: Timestamp) -> String {
    format!("({}", cutoff.as_score())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::partition::Partitions;
    use crate::store::sampling::max_members::MaxMembers;

    fn partitions(count: u16) -> Partitions {
        Partitions::parse(&count.to_string()).unwrap()
    }

    #[test]
    fn key_names_have_a_tag_with_several_partitions() {
        let names = KeyNames::default();
        let keys = |key_set: KeySet| {
            let last = key_set.all().last().unwrap();
            [names.segment(last.segment_keys().next().unwrap(), "{x}:y"), names.index(last), names.layout_of(last)]
        };
        assert_eq!(keys(KeySet::plain()), ["segment:{x}:y", "segments", "layout"]);
        let eight = KeySet::first(partitions(8), None);
        assert_eq!(keys(eight), ["{p07}:segment:{x}:y", "{p07}:segments", "{p07}:layout"]);
        assert_eq!(keys(KeySet::first(partitions(1_024), None))[1], "{p1023}:segments");
        assert_eq!(keys(eight.sibling(partitions(8), None))[1], "{q07}:segments");
    }

    #[test]
    fn key_names_begin_with_the_prefix_and_keep_their_slot() {
        let names = KeyNames::new(KeyPrefix::parse("prod:").unwrap());
        let (plain, last) = (KeySet::plain().of(0), KeySet::first(partitions(8), None).all().last().unwrap());
        assert_eq!(
            [names.segment(plain.segment_keys().next().unwrap(), "x"), names.index(plain)],
            ["prod:segment:x", "prod:segments"]
        );
        assert_eq!(
            [names.segment(last.segment_keys().next().unwrap(), "x"), names.tombstones(last)],
            ["prod:{p07}:segment:x", "prod:{p07}:forgotten"]
        );
        assert_eq!(
            [names.layout(), names.history("x"), names.change("x"), names.lease()],
            ["prod:layout", "prod:history:x", "prod:history: x", "prod:history:"]
        );
        for key in [names.segment(last.segment_keys().next().unwrap(), "{x}"), names.index(last), names.layout_of(last)]
        {
            assert_eq!(Slot::of_any_key(&key), last.slot(), "{key}");
        }
    }

    #[test]
    fn read_recognizes_every_key_name() {
        for names in [KeyNames::default(), KeyNames::new(KeyPrefix::parse("prod:").unwrap())] {
            let read =
                |key: String| names.read(key.clone()).filter(|own| own.key == key).map(|own| (own.kind, own.partition));
            let plain = KeySet::plain().of(0);
            let first_of_many = KeySet::first(partitions(8), None).of(0);
            for partition in [plain, first_of_many, Partition::every().last().unwrap()] {
                let expected = |kind| Some((kind, partition));
                let segment = names.segment(partition.segment_keys().next().unwrap(), "{p00}:segments");
                assert_eq!(read(segment), expected(KeyKind::Segment("{p00}:segments".to_owned())));
                let level = Level::from_number(17).unwrap();
                let of_level = names.segment(SegmentKey { partition, level: Some(level) }, "a:b");
                assert_eq!(read(of_level), expected(KeyKind::SegmentLevel(level, "a:b".to_owned())));
                assert_eq!(read(names.index(partition)), expected(KeyKind::Index));
                assert_eq!(read(names.depths(partition)), expected(KeyKind::Depths));
                assert_eq!(read(names.tombstones(partition)), expected(KeyKind::Tombstones));
                assert_eq!(read(names.layout_of(partition)), expected(KeyKind::Layout));
            }
            assert_eq!(read(names.history("a:b")), Some((KeyKind::History, plain)));
            assert_eq!(read(names.lease()), Some((KeyKind::History, plain)));
            assert_eq!(read(names.change("a:b")), Some((KeyKind::Change, plain)));
            for other in [
                "segment",
                "segments:",
                "segment@7",
                "segment@25:x",
                "segment@07:x",
                "layouts",
                "depth",
                "{p0}:segments",
                "{p1024}:segments",
                "{r00}:segments",
            ] {
                assert_eq!(read(names.plain(other, "")), None, "{other}");
            }
            assert_eq!(read(names.plain("{p00}:history:x", "")), None);
        }
    }

    #[test]
    fn segment_has_a_key_for_each_level_if_it_is_bounded() {
        let names = KeyNames::default();
        let exact = KeySet::first(partitions(8), None).of(0);
        let bounded = KeySet::first(partitions(8), Some(MaxMembers::parse("1024").unwrap())).of(0);
        let keys_of =
            |partition: Partition| partition.segment_keys().map(|key| names.segment(key, "x")).collect::<Vec<_>>();
        assert_eq!(keys_of(exact), ["{p00}:segment:x"]);
        let keys = keys_of(bounded);
        assert_eq!((keys.len(), &*keys[0], &*keys[24]), (25, "{p00}:segment@0:x", "{p00}:segment@24:x"));
        // `u2` has level 1.
        assert_eq!(names.segment(exact.key_of("u2"), "x"), "{p00}:segment:x");
        assert_eq!(names.segment(bounded.key_of("u2"), "x"), "{p00}:segment@1:x");
    }

    #[test]
    fn pattern_escapes_the_prefix() {
        let names = KeyNames::new(KeyPrefix::parse(r"a*[b]?\c:").unwrap());
        assert_eq!(names.pattern("history:*"), r"a\*\[b\]\?\\c:history:*");
    }
}
