//! The types of a list, and its pages.

use std::cmp::Reverse;

use super::changes::Changes;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};

/// A request for a list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The prefix of the names.
    pub prefix: String,
    /// A text that the names contain, in upper or lower case.
    pub contains: String,
    /// The order of the segments.
    pub order: Order,
    /// The maximum number of segments.
    pub limit: usize,
    /// The end of the previous page, or the start of the next one.
    pub cursor: Option<ListCursor>,
    /// The window of the counts.
    pub window: Window,
}

impl ListQuery {
    /// Returns the query for the `limit` largest segments.
    #[must_use]
    pub fn largest(limit: usize, window: Window) -> Self {
        let (prefix, contains) = (String::new(), String::new());
        Self { prefix, contains, order: Order::Count, limit, cursor: None, window }
    }

    /// Returns the filter of the names.
    pub(super) fn filter(&self) -> NameFilter {
        NameFilter::new(&self.prefix, &self.contains)
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name, bytewise.
    Name,
    /// By count, the largest first, then by name.
    Count,
    /// By the change in a week, the largest growth first, then by name. Segments without one come last. A change within
    /// the error of its counts is none.
    Growth,
    /// By the change in a week, the largest loss first, then by name. Segments without one come last. A change within
    /// the error of its counts is none.
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
        let week = counted.changes.week.map(|change| i128::from(change.beyond_error()));
        match self {
            Self::Name => None,
            Self::Count => counted.count.map(|count| count.count().into()),
            Self::Growth => week,
            Self::Decline => week.map(|absolute| -absolute),
            Self::Newest => {
                Some(counted.changes.first_sampled_at.map_or(i128::from(i64::MAX), |first| first.as_millis().into()))
            }
        }
    }
}

/// The names of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameFilter {
    prefix: String,
    /// In lower case.
    contains: String,
}

impl NameFilter {
    /// Returns the filter for names that begin with `prefix` and contain `contains`, in upper or lower case.
    #[must_use]
    pub fn new(prefix: &str, contains: &str) -> Self {
        Self { prefix: prefix.to_owned(), contains: contains.to_lowercase() }
    }

    /// Returns the prefix.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether all names with the prefix match.
    pub(super) fn is_prefix_only(&self) -> bool {
        self.contains.is_empty()
    }

    /// Whether `name` matches.
    #[must_use]
    pub fn matches(&self, name: &SegmentName<'_>) -> bool {
        let name = name.as_str();
        name.starts_with(&self.prefix) && (self.is_prefix_only() || name.to_lowercase().contains(&self.contains))
    }
}

/// The position of a segment in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The rank in the order of the list; `None` in the order of names.
    pub rank: Reverse<Option<i128>>,
    /// The name.
    pub segment: SegmentName<'static>,
}

/// The start of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListCursor {
    /// After a segment.
    After(Position),
    /// Before a segment, so that the page ends there.
    Before(Position),
}

impl ListCursor {
    /// Returns the segment from which the page starts or at which it ends.
    #[must_use]
    pub fn position(&self) -> &Position {
        let (Self::After(position) | Self::Before(position)) = self;
        position
    }

    /// Whether `position` is on the side of the page.
    pub(super) fn allows(&self, position: &Position) -> bool {
        match self {
            Self::After(start) => position > start,
            Self::Before(end) => position < end,
        }
    }
}

/// A page of segments that have users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The segments in the requested order.
    pub segments: Vec<CountedSegment>,
    /// The cursor of the next page, if there is one.
    pub next: Option<ListCursor>,
    /// The cursor of the previous page; `None` on the first page.
    pub previous: Option<ListCursor>,
    /// The number of segments on all pages. In the order of names it is known only if there is one page, since that
    /// order doesn't count all segments.
    pub total: Option<u64>,
    /// The number of segments before this page; `None` on later pages in the order of names, which are not counted.
    pub before: Option<u64>,
    /// The time of the counts.
    pub as_of: Timestamp,
}

/// A segment and the number of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedSegment {
    /// The name.
    pub segment: SegmentName<'static>,
    /// The number of users, or `None` if the segment's key is not a sorted set.
    pub count: Option<Estimate>,
    /// How the number has changed.
    pub changes: Changes,
}

impl CountedSegment {
    /// Whether the segment has no users. A sample without any may have missed a few.
    pub(super) fn is_empty(&self) -> bool {
        self.count.is_some_and(|count| count == 0)
    }

    /// Returns the position of the segment in `order`.
    pub(super) fn position(&self, order: Order) -> Position {
        Position { rank: Reverse(order.rank(self)), segment: self.segment.clone() }
    }
}

/// Returns `segments` as a page: those that are next to the cursor, and one more if there are further ones. There are
/// `total` on all pages, and `allowed` of them are on the side of the cursor that the page is on.
pub(super) fn page(
    mut segments: Vec<CountedSegment>,
    query: &ListQuery,
    total: Option<u64>,
    allowed: Option<u64>,
    as_of: Timestamp,
) -> List {
    let has_more = segments.len() > query.limit;
    let is_backwards = matches!(query.cursor, Some(ListCursor::Before(_)));
    if has_more && is_backwards {
        segments.remove(0);
    }
    segments.truncate(query.limit);
    let position = |counted: &CountedSegment| counted.position(query.order);
    let before = match &query.cursor {
        None => Some(0),
        Some(ListCursor::After(_)) => total.zip(allowed).map(|(total, allowed)| total - allowed),
        Some(ListCursor::Before(_)) => allowed.map(|allowed| allowed - segments.len() as u64),
    };
    let next = segments.last().filter(|_| has_more || is_backwards).map(position);
    let has_previous = if is_backwards { has_more } else { query.cursor.is_some() };
    let previous = match segments.first() {
        Some(first) => has_previous.then(|| position(first)),
        // The segments after the cursor have lost their users.
        None => query.cursor.as_ref().map(|cursor| cursor.position().clone()),
    };
    let (next, previous) = (next.map(ListCursor::After), previous.map(ListCursor::Before));
    List { segments, next, previous, total, before, as_of }
}
