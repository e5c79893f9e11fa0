//! The types of a list, and its pages.

use std::cmp::Reverse;

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
}

/// The last segment of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor {
    /// The name.
    pub segment: SegmentName<'static>,
    /// The number of users, as in [`CountedSegment`].
    pub count: Option<u64>,
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
}

impl CountedSegment {
    /// Returns whether the segment comes after `cursor` in the order by count.
    pub(super) fn comes_after(&self, cursor: &ListCursor) -> bool {
        (Reverse(self.count), &self.segment) > (Reverse(cursor.count), &cursor.segment)
    }
}

/// Returns the first `limit` of `segments` as a page. Any further segment means that there is a next page.
pub(super) fn page(mut segments: Vec<CountedSegment>, limit: usize, as_of: Timestamp) -> List {
    let has_more = segments.len() > limit;
    segments.truncate(limit);
    let last = segments.last().filter(|_| has_more).cloned();
    List { segments, next: last.map(|CountedSegment { segment, count }| ListCursor { segment, count }), as_of }
}
