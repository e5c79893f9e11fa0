//! The new members of segments, which decide when a segment is checked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;

use crate::store::partition::Partition;

/// The members that this instance has added to segments since their last checks.
#[derive(Debug, Default)]
pub(super) struct Additions(Mutex<HashMap<Partition, BySegment, RandomState>>);

type BySegment = HashMap<Box<str>, NewMembers, RandomState>;

#[derive(Debug, Clone, Copy)]
struct NewMembers {
    members: u32,
    /// The number of new members with which the segment is checked.
    due_at: u32,
    is_being_checked: bool,
}

impl Additions {
    /// A segment is checked when it has a new member for so many of the bound.
    const CHECKS_PER_BOUND: u32 = 16;
    /// A segment that is not full is checked when it has gained this part of what it may gain. Several instances add to
    /// it.
    const PART_OF_ROOM: u32 = 4;
    /// Segments of a partition that are counted. With more, all counts begin at 0 again, and slowly growing segments
    /// are left to the prune.
    const MAX_SEGMENTS: usize = 10_000;

    /// Adds `members` to the segment `name`. Returns whether it must be checked now; the check ends with
    /// [`Self::end_check`]. One check of a segment runs at a time.
    pub(super) fn add(&self, partition: Partition, name: &str, members: u32) -> bool {
        let Some(bound) = partition.bound().filter(|_| members > 0) else { return false };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = all.entry(partition).or_default();
        if segments.len() > Self::MAX_SEGMENTS {
            segments.retain(|_, added| added.is_being_checked);
        }
        let added = match segments.get_mut(name) {
            Some(added) => added,
            None => segments.entry(name.into()).or_insert(NewMembers {
                members: 0,
                due_at: bound / Self::CHECKS_PER_BOUND,
                is_being_checked: false,
            }),
        };
        added.members = added.members.saturating_add(members);
        !added.is_being_checked && added.begin_check_if_due()
    }

    /// Notes that the check of the segment `name` has ended and found it to keep so many members; `None` if it failed.
    /// Returns whether the segment must be checked again, because many members were added in the meantime.
    pub(super) fn end_check(&self, partition: Partition, name: &str, kept: Option<u64>) -> bool {
        let bound = partition.bound().unwrap_or(u32::MAX);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(added) = all.get_mut(&partition).and_then(|segments| segments.get_mut(name)) else { return false };
        added.is_being_checked = false;
        let room = kept.map_or(0, |kept| bound.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX)));
        added.due_at = (bound / Self::CHECKS_PER_BOUND).max(room / Self::PART_OF_ROOM);
        kept.is_some() && added.begin_check_if_due()
    }
}

impl NewMembers {
    fn begin_check_if_due(&mut self) -> bool {
        let is_due = self.members >= self.due_at;
        if is_due {
            *self = Self { members: 0, is_being_checked: true, ..*self };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeySet;

    fn partition() -> Partition {
        Partition::new(None, 0, Some(1_024))
    }

    #[test]
    fn add_asks_for_one_check_at_a_time() {
        let (additions, partition) = (Additions::default(), partition());
        assert!(!additions.add(partition, "a", 63));
        assert!(!additions.add(partition, "b", 1));
        assert!(additions.add(partition, "a", 1));
        assert!(!additions.add(partition, "a", 1_000), "a check is in progress");
        assert!(additions.end_check(partition, "a", Some(1_024)), "it has missed them");
        assert!(!additions.end_check(partition, "a", Some(1_024)));
        assert!(additions.add(partition, "a", 64));
        assert!(!additions.add(KeySet::plain().of(0), "a", 1_000), "it has no bound");
    }

    #[test]
    fn add_asks_later_while_there_is_room() {
        let (additions, partition) = (Additions::default(), partition());
        assert!(additions.add(partition, "a", 64));
        assert!(!additions.end_check(partition, "a", Some(64)));
        assert!(!additions.add(partition, "a", 239));
        assert!(additions.add(partition, "a", 1), "a quarter of 960");
        assert!(!additions.end_check(partition, "a", None), "it failed");
        assert!(additions.add(partition, "a", 64));
    }

    #[test]
    fn add_counts_a_limited_number_of_segments() {
        let (additions, partition) = (Additions::default(), partition());
        assert!(additions.add(partition, "checked", 64));
        for number in 0..3 * Additions::MAX_SEGMENTS {
            additions.add(partition, &format!("s{number}"), 1);
        }
        let segments = additions.0.lock().unwrap()[&partition].clone();
        assert!(segments.len() <= Additions::MAX_SEGMENTS + 1 && segments.contains_key("checked"));
    }
}
