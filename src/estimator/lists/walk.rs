//! Reading many segments at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::list::{CountedSegment, List, ListCursor, ListQuery, Order, page};
use super::ranking::{Ranking, Walk};
use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::concurrency_limit::TooMany;
use crate::estimator::error::Error;
use crate::estimator::estimator::Estimator;
use crate::store::{self, IndexCursor};

impl Estimator {
    /// How many segments are counted in one round trip when there is one partition: Redis takes a few microseconds for each count. It
    /// serves other connections between the 16 KiB that it reads of this one at a time.
    const COUNT_BATCH: usize = 200;

    /// The segments that `query` asks for, as far as somebody is in them at `now`. A segment whose count can't be known because
    /// its key holds another type is listed, too, behind all others in the order of counts.
    ///
    /// In the order of counts, lists share a walk over all segments: with 1,000 segments or more the list may be of a moment shortly before
    /// `now`, which [`List::as_of`] tells. It is a second before at the most, or as long before as the walk takes.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`], and when too many lists are being made. A count is never guessed.
    pub async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        self.check_window(query.window)?;
        match query.order {
            Order::Name => self.list_by_name(query, now).await,
            Order::Count => self.list_by_count(query, now).await,
        }
    }

    async fn list_by_name(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        let ListQuery { prefix, limit, after, window, .. } = query;
        let _permit = self.acquire_list_permit()?;
        let start = match after {
            Some(after) => Some(IndexCursor::after(&after.segment)),
            None => IndexCursor::before(prefix),
        };
        let mut segments = Vec::new();
        let take = |counted: CountedSegment| {
            segments.push(counted);
            // One more than that tells that there is another list.
            segments.len() > *limit
        };
        self.walk_occupied(start, prefix, window.cutoff(now), take).await?;
        Ok(page(segments, *limit, now))
    }

    async fn list_by_count(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        let ListQuery { prefix, limit, after, window, .. } = query;
        let key = (*window, prefix.clone());
        let ranking = match after {
            _ if *limit > Ranking::MAX_LIMIT => None,
            Some(_) => self.rankings.recent(&key, now),
            None => Some(self.rankings.get(&key, now, || self.start_ranking(prefix.clone(), *window, now)).await?),
        };
        if let Some(list) = ranking.and_then(|ranking| ranking.page(after.as_ref(), *limit)) {
            return Ok(list);
        }
        let _permit = self.acquire_list_permit()?;
        let (segments, _) = self.first_by_count(prefix, *window, after.as_ref(), *limit, now).await?;
        Ok(page(segments, *limit, now))
    }

    /// A walk over all segments whose names begin with `prefix`, for those who share its ranking. It has a permit until it ends.
    fn start_ranking(&self, prefix: String, window: Window, now: Timestamp) -> Result<Walk, TooMany> {
        let permit = self.acquire_list_permit()?;
        let estimator = self.clone();
        let walk = async move {
            let _permit = permit;
            let first = estimator.first_by_count(&prefix, window, None, Ranking::MAX_LIMIT, now).await;
            first.map(|(segments, counted)| Arc::new(Ranking { segments, counted, as_of: now }))
        };
        Ok(walk.boxed().shared())
    }

    /// The first `limit` segments behind `after` in the order of counts, and one more if there is one; and how many were counted.
    async fn first_by_count(
        &self,
        prefix: &str,
        window: Window,
        after: Option<&ListCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<CountedSegment>, usize), store::Error> {
        // Memory for a page, however many segments there are.
        let mut first = BinaryHeap::new();
        let take = |counted: CountedSegment| {
            if after.is_none_or(|after| counted.comes_after(after)) {
                first.push((Reverse(counted.count), counted.segment));
                if first.len() > limit.saturating_add(1) {
                    first.pop();
                }
            }
            false
        };
        let counted = self.walk_occupied(IndexCursor::before(prefix), prefix, window.cutoff(now), take).await?;
        let first = first.into_sorted_vec().into_iter();
        Ok((first.map(|(Reverse(count), segment)| CountedSegment { segment, count }).collect(), counted))
    }

    /// Gives `take` the segments from `cursor` on whose names begin with `prefix`, as far as somebody was seen in them after `cutoff`,
    /// in name order, until `take` says that it has enough. Returns how many segments were counted.
    async fn walk_occupied(
        &self,
        mut cursor: Option<IndexCursor>,
        prefix: &str,
        cutoff: Timestamp,
        mut take: impl FnMut(CountedSegment) -> bool,
    ) -> Result<usize, store::Error> {
        let mut counted = 0;
        loop {
            let page = self.store.index(cursor.as_ref(), self.count_batch()).await?;
            let found = page.segments.len();
            let names: Vec<_> =
                page.segments.into_iter().take_while(|name| name.as_str().starts_with(prefix)).collect();
            let is_end = names.len() < found || page.next.is_none();
            counted += names.len();
            if self.occupied(names, cutoff).await?.any(&mut take) || is_end {
                return Ok(counted);
            }
            cursor = page.next;
        }
    }

    /// How many segments go into one round trip, each with a count for every partition.
    fn count_batch(&self) -> usize {
        (Self::COUNT_BATCH / self.partitions().map_or(1, |partitions| partitions.count())).max(10)
    }

    /// Those of `names` that somebody was seen in after `cutoff`.
    async fn occupied(
        &self,
        names: Vec<SegmentName<'static>>,
        cutoff: Timestamp,
    ) -> Result<impl Iterator<Item = CountedSegment>, store::Error> {
        let counts = self.count_each(&names, cutoff).await?;
        let counted = names.into_iter().zip(counts).map(|(segment, count)| CountedSegment { segment, count });
        Ok(counted.filter(|counted| counted.count != Some(0)))
    }

    /// How many users are in each of `segments` at `now`, over `window`; `None` as in [`CountedSegment`].
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn estimate_each(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: Timestamp,
    ) -> Result<Vec<Option<u64>>, Error> {
        self.check_window(window)?;
        Ok(self.count_each(segments, window.cutoff(now)).await?)
    }

    async fn count_each(
        &self,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<Vec<Option<u64>>, store::Error> {
        let mut counts = Vec::with_capacity(segments.len());
        for segments in segments.chunks(self.count_batch()) {
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
