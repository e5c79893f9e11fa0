//! Many segments at once: lists of those that somebody is in, and the counts of some.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{EstimateError, Estimator};
use crate::segment::SegmentName;
use crate::store::{self, IndexCursor};
use crate::time::{Timestamp, Window};

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
    /// How many users were in it; `None` as in [`Counted`].
    pub count: Option<u64>,
}

/// Segments that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// In the order that was asked for.
    pub segments: Vec<Counted>,
    /// Where the next list begins, if there may be more.
    pub next: Option<ListCursor>,
}

/// A segment, and how many users are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub segment: SegmentName<'static>,
    /// How many; `None` if the segment's key holds something else than a sorted set.
    pub count: Option<u64>,
}

impl Estimator {
    /// How many segments are counted in one round trip when there is one partition: Redis takes a few microseconds for each count. It
    /// serves other connections between the 16 KiB that it reads of this one at a time.
    const COUNTED_AT_ONCE: usize = 200;

    /// The segments that `query` asks for, as far as somebody is in them at `now`. A segment whose count can't be known because
    /// its key holds another type is listed, too, behind all others in the order of counts.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`]. A count is never guessed.
    pub async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<List, EstimateError> {
        self.check_window(query.window)?;
        let ListQuery { prefix, order, limit, after, window } = query;
        let (start, cutoff) = (IndexCursor::before(prefix), window.cutoff(now));
        let mut segments = Vec::new();
        match order {
            Order::Name => {
                let start = after.as_ref().map_or(start, |after| Some(IndexCursor::after(&after.segment)));
                let take = |counted: Counted| {
                    segments.push(counted);
                    // One more than that tells that there is another list.
                    segments.len() > *limit
                };
                self.walk_occupied(start, prefix, cutoff, take).await?;
            }
            Order::Count => {
                let after = after.as_ref().map(|after| (Reverse(after.count), after.segment.clone()));
                // The first of the order so far, and one more: memory for a page, however many segments there are.
                let mut first = BinaryHeap::new();
                let take = |Counted { segment, count }: Counted| {
                    let place = (Reverse(count), segment);
                    if after.as_ref().is_none_or(|after| place > *after) {
                        first.push(place);
                        if first.len() > limit.saturating_add(1) {
                            first.pop();
                        }
                    }
                    false
                };
                self.walk_occupied(start, prefix, cutoff, take).await?;
                let first = first.into_sorted_vec().into_iter();
                segments = first.map(|(Reverse(count), segment)| Counted { segment, count }).collect();
            }
        }
        Ok(cut(segments, *limit))
    }

    /// Gives `take` the segments from `cursor` on whose names begin with `prefix`, as far as somebody was seen in them after `cutoff`,
    /// in name order, until `take` says that it has enough.
    async fn walk_occupied(
        &self,
        mut cursor: Option<IndexCursor>,
        prefix: &str,
        cutoff: Timestamp,
        mut take: impl FnMut(Counted) -> bool,
    ) -> Result<(), store::Error> {
        loop {
            let page = self.store.index(cursor.as_ref(), self.counted_at_once()).await?;
            let found = page.segments.len();
            let names: Vec<_> =
                page.segments.into_iter().take_while(|name| name.as_str().starts_with(prefix)).collect();
            let is_end = names.len() < found || page.next.is_none();
            if self.occupied(names, cutoff).await?.any(&mut take) || is_end {
                return Ok(());
            }
            cursor = page.next;
        }
    }

    /// How many segments go into one round trip, each with a count for every partition.
    fn counted_at_once(&self) -> usize {
        (Self::COUNTED_AT_ONCE / self.partitions().map_or(1, |partitions| partitions.count())).max(10)
    }

    /// Those of `names` that somebody was seen in after `cutoff`.
    async fn occupied(
        &self,
        names: Vec<SegmentName<'static>>,
        cutoff: Timestamp,
    ) -> Result<impl Iterator<Item = Counted>, store::Error> {
        let counts = self.count_each(&names, cutoff).await?;
        let counted = names.into_iter().zip(counts).map(|(segment, count)| Counted { segment, count });
        Ok(counted.filter(|counted| counted.count != Some(0)))
    }

    /// How many users are in each of `segments` at `now`, over `window`; `None` as in [`Counted`].
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn estimate_each(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: Timestamp,
    ) -> Result<Vec<Option<u64>>, EstimateError> {
        self.check_window(window)?;
        Ok(self.count_each(segments, window.cutoff(now)).await?)
    }

    async fn count_each(
        &self,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<Vec<Option<u64>>, store::Error> {
        let mut counts = Vec::with_capacity(segments.len());
        for segments in segments.chunks(self.counted_at_once()) {
            let questions: Vec<_> = segments.iter().map(|segment| (segment.clone(), cutoff)).collect();
            for count in self.store.counts(&questions.iter().collect::<Vec<_>>()).await? {
                counts.push(match count {
                    Ok(count) => Some(count),
                    // One key's fault must not take the others along.
                    Err(store::Error::WrongType { .. }) => None,
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(counts)
    }
}

/// The first `limit` of `segments`, and where the rest begins.
fn cut(mut segments: Vec<Counted>, limit: usize) -> List {
    let has_more = segments.len() > limit;
    segments.truncate(limit);
    let last = segments.last().filter(|_| has_more).cloned();
    List { segments, next: last.map(|Counted { segment, count }| ListCursor { segment, count }) }
}
