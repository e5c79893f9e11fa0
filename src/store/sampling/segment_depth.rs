//! The recorded depth of a segment in a partition.

use std::fmt;

use crate::domain::{Depth, Score, Timestamp};

/// The depth of a segment in a partition: which levels are written, and which count.
///
/// The hash `depths` of the partition has a field for each segment that keeps a sample. Its text is the depth, such as
/// `7`. While the depth falls, the text is `7>5@1795341600`: visits of level 5 and above are written, and all of them
/// have been written since that Unix time. Members that were last seen before it still have depth 7. A segment that is
/// about to be deleted falls to 0, and the text ends in `!`. A segment without a field has depth 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentDepth {
    /// All levels from this one on have the members of any time.
    complete: Depth,
    fall: Option<Fall>,
}

/// A lower depth that is complete for recent members alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fall {
    to: Depth,
    /// The Unix time in seconds from which all visits of the lower levels are written.
    since: i64,
    /// Whether the segment is about to be deleted.
    is_for_deletion: bool,
}

impl SegmentDepth {
    /// The time from the record of a fall until it is complete. By then, no instance uses knowledge from before: see
    /// [`Depths::MAX_AGE`](super::depths::Depths::MAX_AGE). The rest is for clocks that differ.
    pub(super) const FALL_DELAY_SECS: i64 = 15;

    /// Returns a depth that is complete.
    pub(crate) fn steady(depth: Depth) -> Self {
        Self { complete: depth, fall: None }
    }

    /// Parses the text of a record; `None` if it has another form.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let depth = |text: &str| Depth::from_number(text.parse().ok()?);
        let Some((complete, fall)) = text.split_once('>') else { return depth(text).map(Self::steady) };
        let (fall, is_for_deletion) = fall.strip_suffix('!').map_or((fall, false), |fall| (fall, true));
        let (to, since) = fall.split_once('@')?;
        let (complete, to, since) = (depth(complete)?, depth(to)?, since.parse().ok()?);
        (to < complete).then_some(Self { complete, fall: Some(Fall { to, since, is_for_deletion }) })
    }

    /// Returns the lowest level that is written.
    pub(crate) fn written(self) -> Depth {
        self.fall.map_or(self.complete, |fall| fall.to)
    }

    /// Returns the depth of counts over all members that are kept.
    pub(crate) fn complete(self) -> Depth {
        self.complete
    }

    /// Returns the depth of all members that were last seen at `time` or later.
    pub(crate) fn at(self, time: Timestamp) -> Depth {
        self.of_member(time.into())
    }

    /// Returns the depth of the members whose score is `last_seen`: one of 2^depth users has one.
    pub(crate) fn of_member(self, last_seen: Score) -> Depth {
        match self.fall {
            Some(fall) if last_seen >= fall.complete_since().into() => fall.to,
            _ => self.complete,
        }
    }

    /// Returns the time from which on all visits of the lower levels are written; `None` if it doesn't fall.
    pub(crate) fn falls_since(self) -> Option<Timestamp> {
        self.fall.map(Fall::complete_since)
    }

    /// Whether a segment that had the depth `before` still has all members that it had, of those seen after `cutoff`.
    pub(crate) fn still_keeps(self, before: Self, cutoff: Timestamp) -> bool {
        let times = [Some(cutoff), before.falls_since().filter(|since| *since > cutoff)];
        times.into_iter().flatten().all(|time| self.at(time) <= before.at(time))
    }

    /// Whether all users are kept and count.
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Returns this depth once levels below `depth` are no longer kept.
    pub(super) fn raised_to(self, depth: Depth) -> Self {
        match self.fall {
            Some(fall) if depth < self.complete => {
                let to = depth.max(fall.to);
                Self { fall: Some(Fall { to, is_for_deletion: false, ..fall }), ..self }
            }
            _ => Self::steady(depth.max(self.complete)),
        }
    }

    /// Returns this depth once visits of the levels from `depth` on are written; recorded at `now`.
    pub(super) fn fallen_to(self, depth: Depth, now: Timestamp) -> Self {
        Self { fall: Some(Fall { to: depth, since: Self::since(now), is_for_deletion: false }), ..self }
    }

    /// Returns this depth for a segment that is about to be deleted; recorded at `now`.
    pub(super) fn before_deletion(self, now: Timestamp) -> Self {
        Self { fall: Some(Fall { to: Depth::ZERO, since: Self::since(now), is_for_deletion: true }), ..self }
    }

    /// Whether it is marked for a deletion for long enough at `now` that the deletion can be completed.
    pub(super) fn is_marked(self, now: Timestamp) -> bool {
        /// More than a deletion waits for other instances.
        const REMAINING_SECS: i64 = 6;
        let is_long_enough = |fall: Fall| fall.since >= now.as_millis().div_euclid(1_000) + REMAINING_SECS;
        self.fall.is_some_and(|fall| fall.is_for_deletion && fall.is_plausible(now) && is_long_enough(fall))
    }

    fn since(now: Timestamp) -> i64 {
        now.as_millis().div_euclid(1_000) + 1 + Self::FALL_DELAY_SECS
    }

    /// Returns this depth at `now` if its fall is complete for all members that were seen after `cutoff`; otherwise
    /// `None`.
    pub(super) fn settled(self, cutoff: Timestamp) -> Option<Self> {
        self.fall.filter(|fall| cutoff >= fall.complete_since()).map(|fall| Self::steady(fall.to))
    }

    /// Returns the Unix time in seconds until which a deletion of the segment may be in progress, which needs all
    /// levels to be written; `None` if there is none.
    pub(super) fn deletion_deadline(self) -> Option<i64> {
        self.fall.filter(|fall| fall.is_for_deletion).map(|fall| fall.since)
    }

    /// Returns the Unix time in seconds by which its fall must be recorded, so that every instance knows of it before
    /// it is complete; `None` if it doesn't fall.
    pub(super) fn record_by(self) -> Option<i64> {
        /// More than [`Depths::MAX_AGE`](super::depths::Depths::MAX_AGE).
        const MARGIN_SECS: i64 = 5;
        self.fall.map(|fall| fall.since - MARGIN_SECS)
    }

    /// Returns the text of the field; empty for a segment that has none.
    pub(in crate::store) fn field(self) -> String {
        if self.is_zero() { String::new() } else { self.to_string() }
    }

    /// Whether it falls from a time that no correct clock has recorded by `now`.
    pub(super) fn has_implausible_fall(self, now: Timestamp) -> bool {
        self.fall.is_some_and(|fall| !fall.is_plausible(now))
    }

    /// Whether it falls.
    pub(super) fn is_falling(self) -> bool {
        self.fall.is_some()
    }
}

impl Fall {
    fn complete_since(self) -> Timestamp {
        Timestamp::from_millis(self.since.saturating_mul(1_000))
    }

    fn is_plausible(self, now: Timestamp) -> bool {
        /// Twice the delay, and more than clocks may differ by.
        const MAX_AHEAD_SECS: i64 = 60;
        self.since <= now.as_millis().div_euclid(1_000) + MAX_AHEAD_SECS
    }
}

impl fmt::Display for SegmentDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.complete.number())?;
        self.fall.map_or(Ok(()), |fall| {
            let mark = if fall.is_for_deletion { "!" } else { "" };
            write!(f, ">{}@{}{mark}", fall.to.number(), fall.since)
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[rstest]
    #[case::steady("7", true)]
    #[case::falling("7>5@1795341600", true)]
    #[case::about_to_be_deleted("7>0@1795341600!", true)]
    #[case::too_deep("25", false)]
    #[case::rising("5>7@1795341600", false)]
    #[case::no_fall("7>7@1795341600", false)]
    #[case::no_time("7>5", false)]
    #[case::marked_without_a_fall("7!", false)]
    #[case::empty("", false)]
    #[case::another_program("seven", false)]
    fn text_round_trips(#[case] text: &str, #[case] is_valid: bool) {
        let parsed = SegmentDepth::parse(text.as_bytes());
        assert_eq!(parsed.map(|depth| depth.to_string()).as_deref(), is_valid.then_some(text));
    }

    #[test]
    fn falling_depth_writes_more_levels_at_once_and_counts_them_later() {
        let falling = SegmentDepth::steady(depth(7)).fallen_to(depth(5), at(100));
        assert_eq!((falling.written(), falling.complete()), (depth(5), depth(7)));
        assert_eq!((falling.at(at(115)), falling.at(at(116))), (depth(7), depth(5)));
        assert_eq!((falling.settled(at(115)), falling.settled(at(116))), (None, Some(SegmentDepth::steady(depth(5)))));
    }

    #[test]
    fn raise_of_a_falling_depth_keeps_what_is_complete() {
        let falling = SegmentDepth::steady(depth(7)).fallen_to(depth(3), at(100));
        assert_eq!(falling.raised_to(depth(5)).to_string(), "7>5@116");
        assert_eq!(falling.raised_to(depth(2)), falling);
        assert_eq!(falling.raised_to(depth(7)), SegmentDepth::steady(depth(7)));
        assert_eq!(falling.raised_to(depth(9)), SegmentDepth::steady(depth(9)));
    }

    #[rstest]
    #[case::same("5", "5", true)]
    #[case::raised("5", "6", false)]
    #[case::raised_and_falling_again("5", "9>5@300", false)]
    #[case::lower("5", "3", true)]
    #[case::fall_begins("5", "5>3@300", true)]
    #[case::settled("7>5@200", "5", true)]
    #[case::raised_to_its_end("7>5@200", "7", false)]
    #[case::raised_while_falling("7>5@200", "7>6@200", false)]
    #[case::fell_before("7>5@50", "7>5@50", true)]
    fn raise_deletes_members(#[case] before: &str, #[case] now: &str, #[case] expected: bool) {
        let [before, now] = [before, now].map(|text| SegmentDepth::parse(text.as_bytes()).unwrap());
        assert_eq!(now.still_keeps(before, at(100)), expected);
    }

    #[test]
    fn deletion_is_in_progress_until_its_fall_is_complete() {
        let marked = SegmentDepth::steady(depth(7)).before_deletion(at(100));
        assert_eq!((marked.written(), marked.at(at(100))), (Depth::ZERO, depth(7)));
        assert_eq!(marked.deletion_deadline(), Some(116));
        assert!(marked.is_marked(at(110)) && !marked.is_marked(at(111)));
        assert!(!SegmentDepth::steady(depth(7)).fallen_to(depth(0), at(100)).is_marked(at(100)));
        assert_eq!(marked.raised_to(depth(2)).deletion_deadline(), None);
        // The clock was wrong by an hour when the mark was set.
        assert!(marked.has_implausible_fall(at(100 - 3_600)) && !marked.has_implausible_fall(at(100)));
    }
}
