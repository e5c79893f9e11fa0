//! The types of a list, and its pages.

use std::cmp::Ordering;

use super::changes::Changes;
use crate::domain::{SegmentName, Timestamp, Window};

/// A request for a list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The prefix of the names.
    pub prefix: String,
    /// The order of the segments.
    pub order: Order,
    /// The maximum number of segments.
    pub limit: usize,
    /// The end of the previous page.
    pub after: Option<ListCursor>,
    /// The window of the counts.
    pub window: Window,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name, bytewise.
    Name,
    /// By count, the largest first, then by name.
    Count,
    /// By the change in a week, the largest growth first, then by name. Segments without one come last.
    Growth,
    /// By the change in a week, the largest loss first, then by name. Segments without one come last.
    Decline,
    /// By the time of the first sample, the latest first, then by name. Segments without samples come first.
    Newest,
}

impl Order {
    /// Whether the order depends on the changes of the segments.
    pub(super) fn is_by_change(self) -> bool {
        matches!(self, Self::Growth | Self::Decline | Self::Newest)
    }

    /// Returns the rank of `counted`. Higher ranks come first, `None` comes last, and names decide between equal ranks.
    pub(super) fn rank(self, counted: &CountedSegment) -> Option<i128> {
        let week = counted.changes.week.map(|change| i128::from(change.absolute()));
        match self {
            Self::Name | Self::Count => counted.count.map(i128::from),
            Self::Growth => week,
            Self::Decline => week.map(|absolute| -absolute),
            Self::Newest => {
                Some(counted.changes.first_sampled_at.map_or(i128::from(i64::MAX), |first| first.as_millis().into()))
            }
        }
    }
}

/// The last segment of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor {
    /// The name.
    pub segment: SegmentName<'static>,
    /// The rank in the order of the list. In the order of names it has no meaning.
    pub rank: Option<i128>,
}

/// A page of segments that have users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The segments in the requested order.
    pub segments: Vec<CountedSegment>,
    /// The cursor of the next page, if there is one.
    pub next: Option<ListCursor>,
    /// The time of the counts.
    pub as_of: Timestamp,
}

/// A segment and the number of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedSegment {
    /// The name.
    pub segment: SegmentName<'static>,
    /// The number of users, or `None` if the segment's key is not a sorted set.
    pub count: Option<u64>,
    /// How the number has changed.
    pub changes: Changes,
}

impl CountedSegment {
    /// Returns the position of the segment in `order`.
    pub(super) fn cursor(&self, order: Order) -> ListCursor {
        ListCursor { segment: self.segment.clone(), rank: order.rank(self) }
    }
}

impl Ord for ListCursor {
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank.cmp(&self.rank).then_with(|| self.segment.cmp(&other.segment))
    }
}

impl PartialOrd for ListCursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Returns the first `limit` of `segments` as a page. Any further segment means that there is a next page.
pub(super) fn page(mut segments: Vec<CountedSegment>, order: Order, limit: usize, as_of: Timestamp) -> List {
    let has_more = segments.len() > limit;
    segments.truncate(limit);
    let next = segments.last().filter(|_| has_more).map(|last| last.cursor(order));
    List { segments, next, as_of }
}
