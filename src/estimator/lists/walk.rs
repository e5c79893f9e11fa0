//! Reads the index and counts its segments in pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::list::{CountedSegment, List, ListCursor, ListQuery, NameFilter, Order, Position, page};
use super::ranking::{Key as RankingKey, Ranking, Walk};
use crate::domain::Timestamp;
use crate::estimator::error::{Error, TooMany};
use crate::estimator::estimator::Estimator;
use crate::store::{self, IndexCursor};

/// The segments of a page, and how many there are.
struct WalkResult {
    /// The segments of the page, and one more if there are further ones.
    segments: Vec<CountedSegment>,
    /// How many names with the prefix were read.
    names_read: usize,
    /// How many segments have users.
    total: u64,
    /// How many of them are on the side of the cursor that the page is on.
    allowed: u64,
}

impl Estimator {
    /// Lists the segments of `query` that have users at `now`. A segment whose key is not a sorted set is listed
    /// without a count, and comes last in the order by count.
    ///
    /// Lists in any order but that of names share a walk over all segments. With 1,000 segments or more the counts may
    /// therefore be of an earlier time, [`List::as_of`]: up to one second earlier, or by the duration of the walk.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`], and [`Error::TooMany`] if too many lists are running.
    pub async fn list(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        self.check_window(query.window)?;
        let list = self.list_page(query, now).await?;
        if list.segments.is_empty() && matches!(query.cursor, Some(ListCursor::Before(_))) {
            // All segments before the cursor have lost their users.
            return self.list_page(&ListQuery { cursor: None, ..query.clone() }, now).await;
        }
        Ok(list)
    }

    async fn list_page(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        match (query.order, &query.cursor) {
            (Order::Name, None | Some(ListCursor::After(_))) => self.list_by_name(query, now).await,
            _ => self.list_by_rank(query, now).await,
        }
    }

    async fn list_by_name(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        let _permit = self.acquire_list_permit()?;
        let start = match &query.cursor {
            Some(cursor) => Some(IndexCursor::after(&cursor.position().segment)),
            None => IndexCursor::before(&query.prefix),
        };
        let mut segments = Vec::new();
        let take = |counted: CountedSegment| {
            segments.push(counted);
            // One more means that there is a next page.
            segments.len() > query.limit
        };
        let cutoff = query.window.cutoff(now);
        self.walk_occupied(start, &query.filter(), cutoff, None, take).await?;
        self.add_changes(&mut segments, now).await?;
        let is_only_page = query.cursor.is_none() && segments.len() <= query.limit;
        let total = is_only_page.then_some(segments.len() as u64);
        Ok(page(segments, query, total, None, now))
    }

    async fn list_by_rank(&self, query: &ListQuery, now: Timestamp) -> Result<List, Error> {
        let key = (query.window, query.filter(), query.order);
        let ranking = match query.cursor {
            _ if query.limit > Ranking::MAX_LIMIT => None,
            Some(_) => self.rankings.recent(&key, now),
            None => Some(self.rankings.get(&key, now, || self.start_ranking(key.clone(), now)).await?),
        };
        if let Some(list) = ranking.and_then(|ranking| ranking.page(query)) {
            return Ok(list);
        }
        let _permit = self.acquire_list_permit()?;
        let walked = self.walk_by_rank(&key, query.cursor.as_ref(), query.limit, now).await?;
        // The walk in the order of names ended at the cursor.
        let total = (query.order != Order::Name).then_some(walked.total);
        Ok(page(walked.segments, query, total, Some(walked.allowed), now))
    }

    /// Starts a walk over the segments of `key`, for a shared ranking. The walk holds a permit until it ends.
    fn start_ranking(&self, key: RankingKey, now: Timestamp) -> Result<Walk, TooMany> {
        let permit = self.acquire_list_permit()?;
        let estimator = self.clone();
        let walk = async move {
            let _permit = permit;
            let walked = estimator.walk_by_rank(&key, None, Ranking::MAX_LIMIT, now).await;
            walked.map(|WalkResult { segments, names_read, total, .. }| {
                Arc::new(Ranking { segments, names_read, total, as_of: now })
            })
        };
        Ok(walk.boxed().shared())
    }

    /// Returns the `limit` segments of `key` that are next to `cursor`, in order, and one more if there is one.
    async fn walk_by_rank(
        &self,
        (window, filter, order): &RankingKey,
        cursor: Option<&ListCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<WalkResult, store::Error> {
        // Holds one page, however many segments there are.
        let (mut kept, mut total, mut allowed) = (BTreeMap::<Position, CountedSegment>::new(), 0, 0);
        let is_backwards = matches!(cursor, Some(ListCursor::Before(_)));
        let take = |counted: CountedSegment| {
            total += 1;
            let position = counted.position(*order);
            let is_allowed = cursor.is_none_or(|cursor| cursor.allows(&position));
            if is_allowed {
                allowed += 1;
                kept.insert(position, counted);
                if kept.len() > limit.saturating_add(1) {
                    if is_backwards {
                        kept.pop_first()
                    } else {
                        kept.pop_last()
                    };
                }
            }
            // No segment after the cursor is on its page.
            *order == Order::Name && !is_allowed
        };
        let (start, cutoff) = (IndexCursor::before(filter.prefix()), window.cutoff(now));
        let changes_at = order.is_by_change().then_some(now);
        let names_read = self.walk_occupied(start, filter, cutoff, changes_at, take).await?;
        let mut segments: Vec<_> = kept.into_values().collect();
        if changes_at.is_none() {
            self.add_changes(&mut segments, now).await?;
        }
        Ok(WalkResult { segments, names_read, total, allowed })
    }

    /// Passes segments to `take` in the order of their names, from `cursor` on, until it returns true. Only those that
    /// match `filter` and have members seen after `cutoff` are passed, with their changes at `changes_at`. Returns how
    /// many names with the prefix were read.
    async fn walk_occupied(
        &self,
        mut cursor: Option<IndexCursor>,
        filter: &NameFilter,
        cutoff: Timestamp,
        changes_at: Option<Timestamp>,
        mut take: impl FnMut(CountedSegment) -> bool,
    ) -> Result<usize, store::Error> {
        /// Batches of names in one page of the index if few of them are counted.
        const BATCHES: usize = 5;
        let batches = if filter.is_prefix_only() { 1 } else { BATCHES };
        let mut names_read = 0;
        loop {
            let page = self.store.index(cursor.as_ref(), batches * self.count_batch()).await?;
            let found = page.segments.len();
            let mut names: Vec<_> =
                page.segments.into_iter().take_while(|name| name.as_str().starts_with(filter.prefix())).collect();
            let is_end = names.len() < found || page.next.is_none();
            names_read += names.len();
            names.retain(|name| filter.matches(name));
            if self.occupied(names, cutoff, changes_at).await?.any(&mut take) || is_end {
                return Ok(names_read);
            }
            cursor = page.next;
        }
    }
}
