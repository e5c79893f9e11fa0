//! Reads the index and counts its segments in pages.

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
    /// Segments counted in one round trip with one partition. Redis takes a few microseconds for each count, and serves
    /// other connections after every 16 KiB of commands.
    const COUNT_BATCH: usize = 200;

    /// Lists the segments of `query` that have users at `now`. A segment whose key is not a sorted set is listed
    /// without a count, and comes last in the order by count.
    ///
    /// Lists by count share a walk over all segments. With 1,000 segments or more the counts may therefore be of an
    /// earlier time, [`List::as_of`]: up to one second earlier, or by the duration of the walk.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`], and [`Error::TooMany`] if too many lists are running.
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
            // One more means that there is a next page.
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

    /// Starts a walk over all segments with `prefix`, for a shared ranking. The walk holds a permit until it ends.
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

    /// Returns the first `limit` segments after `after` in the order by count, one more if there is one, and how many
    /// were counted.
    async fn first_by_count(
        &self,
        prefix: &str,
        window: Window,
        after: Option<&ListCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<CountedSegment>, usize), store::Error> {
        // Holds one page, however many segments there are.
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

    /// Passes segments to `take` in the order of their names, from `cursor` on, until it returns true. Only those with
    /// `prefix` and members seen after `cutoff` are passed. Returns how many segments were counted.
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

    /// Returns how many segments to count in one round trip. Each takes a count for every partition.
    fn count_batch(&self) -> usize {
        (Self::COUNT_BATCH / self.partitions().map_or(1, |partitions| partitions.count())).max(10)
    }

    /// Returns the segments that have members seen after `cutoff`.
    async fn occupied(
        &self,
        names: Vec<SegmentName<'static>>,
        cutoff: Timestamp,
    ) -> Result<impl Iterator<Item = CountedSegment>, store::Error> {
        let counts = self.count_each(&names, cutoff).await?;
        let counted = names.into_iter().zip(counts).map(|(segment, count)| CountedSegment { segment, count });
        Ok(counted.filter(|counted| counted.count != Some(0)))
    }

    /// Counts the users in each of `segments` at `now` over `window`; `None` as in [`CountedSegment`].
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
            let requests: Vec<_> = segments.iter().map(|segment| (segment.clone(), cutoff)).collect();
            for count in self.store.counts(&requests.iter().collect::<Vec<_>>()).await? {
                counts.push(match count {
                    Ok(count) => Some(count),
                    // A wrong type concerns this segment alone.
                    Err(error) if error.is_wrong_type() => None,
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(counts)
    }
}
