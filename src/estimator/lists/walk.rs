//! Reads the index and counts its segments in pages.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::list::{CountedSegment, List, ListCursor, ListQuery, Order, page};
use super::ranking::{Key as RankingKey, Ranking, Walk};
use crate::domain::Timestamp;
use crate::estimator::concurrency_limit::TooMany;
use crate::estimator::error::Error;
use crate::estimator::estimator::Estimator;
use crate::store::{self, IndexCursor};

impl Estimator {
    /// Lists the segments of `query` that have users at `now`. A segment whose key is not a sorted set is listed
    /// without a count, and comes last in the order by count.
    ///
    /// Lists in any order but that of names share a walk over all segments. With 1,000 segments or more the counts may therefore be of an
    /// earlier time, [`List::as_of`]: up to one second earlier, or by the duration of the walk.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`], and [`Error::TooMany`] if too many lists are running.
    pub async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        self.check_window(query.window)?;
        match query.order {
            Order::Name => self.list_by_name(query, now).await,
            _ => self.list_by_rank(query, now).await,
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
        let cutoff = window.cutoff(now);
        self.walk_occupied(start, prefix, cutoff, None, take).await?;
        self.add_changes(&mut segments, now).await?;
        Ok(page(segments, Order::Name, *limit, now))
    }

    async fn list_by_rank(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        let ListQuery { prefix, order, limit, after, window } = query;
        let key = (*window, prefix.clone(), *order);
        let ranking = match after {
            _ if *limit > Ranking::MAX_LIMIT => None,
            Some(_) => self.rankings.recent(&key, now),
            None => Some(self.rankings.get(&key, now, || self.start_ranking(key.clone(), now)).await?),
        };
        if let Some(list) = ranking.and_then(|ranking| ranking.page(*order, after.as_ref(), *limit)) {
            return Ok(list);
        }
        let _permit = self.acquire_list_permit()?;
        let (segments, _) = self.first_by_rank(&key, after.as_ref(), *limit, now).await?;
        Ok(page(segments, *order, *limit, now))
    }

    /// Starts a walk over the segments of `key`, for a shared ranking. The walk holds a permit until it ends.
    fn start_ranking(&self, key: RankingKey, now: Timestamp) -> Result<Walk, TooMany> {
        let permit = self.acquire_list_permit()?;
        let estimator = self.clone();
        let walk = async move {
            let _permit = permit;
            let first = estimator.first_by_rank(&key, None, Ranking::MAX_LIMIT, now).await;
            first.map(|(segments, counted)| Arc::new(Ranking { segments, counted, as_of: now }))
        };
        Ok(walk.boxed().shared())
    }

    /// Returns the first `limit` segments of `key` after `after`, one more if there is one, and how many
    /// were counted.
    async fn first_by_rank(
        &self,
        (window, prefix, order): &RankingKey,
        after: Option<&ListCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<CountedSegment>, usize), store::Error> {
        // Holds one page, however many segments there are.
        let mut first = BinaryHeap::new();
        let take = |counted: CountedSegment| {
            let cursor = counted.cursor(*order);
            if after.is_none_or(|after| cursor > *after) {
                first.push(Ranked(cursor, counted));
                if first.len() > limit.saturating_add(1) {
                    first.pop();
                }
            }
            false
        };
        let (start, cutoff) = (IndexCursor::before(prefix), window.cutoff(now));
        let changes_at = order.is_by_change().then_some(now);
        let counted = self.walk_occupied(start, prefix, cutoff, changes_at, take).await?;
        let mut first: Vec<_> = first.into_sorted_vec().into_iter().map(|Ranked(_, counted)| counted).collect();
        if changes_at.is_none() {
            self.add_changes(&mut first, now).await?;
        }
        Ok((first, counted))
    }

    /// Passes segments to `take` in the order of their names, from `cursor` on, until it returns true. Only those with
    /// `prefix` and members seen after `cutoff` are passed, with their changes at `changes_at`. Returns how many segments were counted.
    async fn walk_occupied(
        &self,
        mut cursor: Option<IndexCursor>,
        prefix: &str,
        cutoff: Timestamp,
        changes_at: Option<Timestamp>,
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
            if self.occupied(names, cutoff, changes_at).await?.any(&mut take) || is_end {
                return Ok(counted);
            }
            cursor = page.next;
        }
    }
}

/// A segment with its position in the order of a list.
struct Ranked(ListCursor, CountedSegment);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Ranked {}
