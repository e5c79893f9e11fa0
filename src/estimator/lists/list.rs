//! Lists of segments, and their pages.

use std::cmp::Reverse;

use crate::domain::{SegmentName, Timestamp, Window};

/// Which segments are asked for, and how.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// What their names begin with.
    pub prefix: String,
    /// In which order they come.
    pub order: Order,
    /// How many, at the most.
    pub limit: usize,
    /// Where the list before ended.
    pub after: Option<ListCursor>,
    /// The window that they are counted over.
    pub window: Window,
}

/// The orders of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the bytes of their names.
    Name,
    /// The largest first, and by name among those that are as large.
    Count,
}

/// Where a list ended: at this segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor {
    /// Its name.
    pub segment: SegmentName<'static>,
    /// How many users were in it; `None` as in [`CountedSegment`].
    pub count: Option<u64>,
}

/// Segments that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// In the order that was asked for.
    pub segments: Vec<CountedSegment>,
    /// Where the next list begins, if there may be more.
    pub next: Option<ListCursor>,
    /// The moment that the counts are of.
    pub as_of: Timestamp,
}

/// A segment, and how many users are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedSegment {
    /// Its name.
    pub segment: SegmentName<'static>,
    /// How many; `None` if the segment's key holds something else than a sorted set.
    pub count: Option<u64>,
}

impl CountedSegment {
    /// Whether it comes after `cursor` in the order of counts.
    pub(super) fn comes_after(&self, cursor: &ListCursor) -> bool {
        (Reverse(self.count), &self.segment) > (Reverse(cursor.count), &cursor.segment)
    }
}

/// The first `limit` of `segments`, and where the rest begins.
pub(super) fn page(mut segments: Vec<CountedSegment>, limit: usize, as_of: Timestamp) -> List {
    let has_more = segments.len() > limit;
    segments.truncate(limit);
    let last = segments.last().filter(|_| has_more).cloned();
    List { segments, next: last.map(|CountedSegment { segment, count }| ListCursor { segment, count }), as_of }
}
