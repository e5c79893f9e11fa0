//! A few of the visits that an earlier run has dealt with, by which it is found out whether the data set has them still. It may have been
//! emptied, or made anew.

use crate::domain::visit_json::RawVisit;
use crate::domain::{Timestamp, Visit};

/// Visits that are spread evenly over all that were offered, in their order.
#[derive(Debug)]
pub(super) struct Witnesses {
    visits: Vec<Visit<'static>>,
    /// Records that were offered.
    offered: usize,
    /// Of so many records one is taken.
    stride: usize,
}

impl Witnesses {
    /// At most so many.
    const MAX: usize = 256;
    /// So many that follow each other say whether that part is there.
    pub(super) const PART: usize = 16;

    pub(super) fn new() -> Self {
        Self { visits: Vec::new(), offered: 0, stride: 1 }
    }

    /// Whether the next record is one to be offered.
    pub(super) fn is_next(&mut self) -> bool {
        self.offered += 1;
        self.offered.is_multiple_of(self.stride)
    }

    /// Takes `visit`, which must be there still unless it was seen at or before `cutoff`. Without a time of its own it was seen before
    /// `saved_at`, when the earlier run ended.
    pub(super) fn offer(&mut self, visit: RawVisit<'_>, cutoff: Timestamp, saved_at: Timestamp) {
        let RawVisit { user_id, segment, seen_at } = visit;
        if seen_at.unwrap_or(saved_at) <= cutoff {
            return;
        }
        // The time of the import isn't known.
        let seen_at = seen_at.unwrap_or(Timestamp::from_millis(0));
        self.visits.push(Visit { user_id, segment, seen_at }.into_owned());
        if self.visits.len() == Self::MAX {
            let mut place = 0;
            self.visits.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.stride *= 2;
        }
    }

    pub(super) fn into_visits(self) -> Vec<Visit<'static>> {
        self.visits
    }
}
