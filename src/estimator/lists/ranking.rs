//! Rankings: the order of segments by count or by change, shared by concurrent and subsequent lists.
//!
//! A ranking needs the count of every segment, whatever the page. One walk over all segments answers every list of the
//! same window, names and order that arrives while the walk runs, and for one second after. With few segments a walk is
//! cheap, so a list only shares a walk that started after its request. It then shows every visit that was acknowledged
//! before the request.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::list::{CountedSegment, List, ListCursor, ListQuery, NameFilter, Order, page};
use crate::domain::{Timestamp, Window};
use crate::estimator::error::{Error, TooMany};
use crate::store;

/// The first segments in an order other than that of names.
#[derive(Debug)]
pub(super) struct Ranking {
    /// At most [`Self::MAX_LIMIT`] segments, and one more if there are further ones.
    pub(super) segments: Vec<CountedSegment>,
    /// How many names were read.
    pub(super) names_read: usize,
    /// How many of them have users.
    pub(super) total: u64,
    /// The time of the counts.
    pub(super) as_of: Timestamp,
}

impl Ranking {
    /// The largest page that a ranking can answer.
    pub(super) const MAX_LIMIT: usize = 1_000;
    /// With this many segments, a ranking also answers lists that were requested after its walk started.
    const MIN_SHARED: usize = 1_000;

    /// Returns the page of `query`, unless it reaches beyond the ranking.
    pub(super) fn page(&self, query: &ListQuery) -> Option<List> {
        let position = |counted: &CountedSegment| counted.position(query.order);
        let is_complete = self.segments.len() <= Self::MAX_LIMIT;
        let count = query.limit.saturating_add(1);
        // The segments are in order, so the allowed ones are at the end or at the start.
        let (allowed, segments, is_covered) = match &query.cursor {
            Some(ListCursor::Before(end)) => {
                let allowed = self.segments.partition_point(|counted| position(counted) < *end);
                let is_covered = self.segments.last().is_some_and(|last| position(last) >= *end);
                (allowed as u64, &self.segments[allowed.saturating_sub(count)..allowed], is_covered)
            }
            cursor => {
                let is_before =
                    |counted: &CountedSegment| cursor.as_ref().is_some_and(|cursor| !cursor.allows(&position(counted)));
                let before = self.segments.partition_point(is_before);
                let segments = &self.segments[before..self.segments.len().min(before.saturating_add(count))];
                (self.total - before as u64, segments, segments.len() == count)
            }
        };
        let page = || page(segments.to_vec(), query, Some(self.total), Some(allowed), self.as_of);
        (is_complete || is_covered).then(page)
    }

    fn is_shared_later(&self) -> bool {
        self.names_read >= Self::MIN_SHARED
    }
}

/// The walk that computes a ranking. Cancelled when its last caller is dropped.
pub(super) type Walk = Shared<BoxFuture<'static, Result<Arc<Ranking>, store::Error>>>;

/// The window of a ranking, the filter of its names, and its order.
pub(super) type Key = (Window, NameFilter, Order);

/// The running walks, and the rankings of the last second.
#[derive(Default)]
pub struct Rankings(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the next walk.
    next: u64,
    /// Oldest first.
    entries: Vec<Entry>,
}

struct Entry {
    key: Key,
    number: u64,
    as_of: Timestamp,
    stage: Stage,
}

enum Stage {
    /// The callers hold the walk.
    Running(WeakShared<BoxFuture<'static, Result<Arc<Ranking>, store::Error>>>),
    Done(Arc<Ranking>),
}

enum Found {
    Running(u64, Walk),
    Done(Arc<Ranking>),
}

impl Rankings {
    /// How old a shared ranking may be.
    const SHARED_FOR: Duration = Duration::from_secs(1);
    /// How long after its start a walk accepts further callers: the default deadline of a request.
    const JOINED_FOR: Duration = Duration::from_secs(30);
    /// How many finished rankings are cached, of up to 300 KB each. They are dropped when a list finds them too old.
    const MAX_KEPT: usize = 8;

    /// Returns the ranking of `key` at `now` or shortly before. Calls `start` if there is no walk or ranking to share.
    pub(super) async fn get(
        &self,
        key: &Key,
        now: Timestamp,
        start: impl Fn() -> Result<Walk, TooMany>,
    ) -> Result<Arc<Ranking>, Error> {
        let arrival = self.lock().next;
        loop {
            let (number, walk) = match self.join_or_start(key, now, &start)? {
                Found::Done(ranking) => return Ok(ranking),
                Found::Running(number, walk) => (number, walk),
            };
            let outcome = walk.await;
            self.finish(number, &outcome);
            let ranking = outcome?;
            // The next walk starts after the arrival, so a list waits for two at most.
            if number >= arrival || ranking.is_shared_later() {
                return Ok(ranking);
            }
        }
    }

    /// Returns the ranking of `key` from the last second.
    pub(super) fn recent(&self, key: &Key, now: Timestamp) -> Option<Arc<Ranking>> {
        self.lock().recent(key, now)
    }

    fn join_or_start(
        &self,
        key: &Key,
        now: Timestamp,
        start: impl Fn() -> Result<Walk, TooMany>,
    ) -> Result<Found, TooMany> {
        let mut state = self.lock();
        if let Some(ranking) = state.recent(key, now) {
            return Ok(Found::Done(ranking));
        }
        let running =
            state.entries.iter().rev().filter(|entry| entry.key == *key && is_near(entry.as_of, now, Self::JOINED_FOR));
        let mut running = running.filter_map(|entry| match &entry.stage {
            Stage::Running(walk) => Some(Found::Running(entry.number, walk.upgrade()?)),
            Stage::Done(_) => None,
        });
        if let Some(running) = running.next() {
            return Ok(running);
        }
        drop(running);
        let walk = start()?;
        let stage = Stage::Running(walk.downgrade().expect("a walk that was never polled is not complete"));
        let number = state.next;
        state.next += 1;
        state.entries.push(Entry { key: key.clone(), number, as_of: now, stage });
        Ok(Found::Running(number, walk))
    }

    /// Caches the ranking of the walk `number` if later lists may share it. Errors are not cached.
    fn finish(&self, number: u64, outcome: &Result<Arc<Ranking>, store::Error>) {
        let mut state = self.lock();
        let Some(at) = state.entries.iter().position(|entry| entry.number == number) else { return };
        match outcome {
            Ok(ranking) if ranking.is_shared_later() => state.entries[at].stage = Stage::Done(Arc::clone(ranking)),
            _ => drop(state.entries.remove(at)),
        }
        let is_done = |entry: &Entry| matches!(entry.stage, Stage::Done(_));
        if state.entries.iter().filter(|entry| is_done(entry)).count() > Self::MAX_KEPT {
            let oldest = state.entries.iter().position(is_done).expect("some are done");
            state.entries.remove(oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recent(&mut self, key: &Key, now: Timestamp) -> Option<Arc<Ranking>> {
        self.entries.retain(|entry| match &entry.stage {
            Stage::Running(walk) => walk.upgrade().is_some(),
            Stage::Done(_) => is_near(entry.as_of, now, Rankings::SHARED_FOR),
        });
        self.entries.iter().rev().filter(|entry| entry.key == *key).find_map(|entry| match &entry.stage {
            Stage::Done(ranking) => Some(Arc::clone(ranking)),
            Stage::Running(_) => None,
        })
    }
}

/// Returns whether `as_of` is within `distance` of `now`. It may be later: callers read the clock before they arrive
/// here.
fn is_near(as_of: Timestamp, now: Timestamp, distance: Duration) -> bool {
    as_of + distance >= now && now + distance >= as_of
}

impl fmt::Debug for Rankings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rankings").field("entries", &self.lock().entries.len()).finish()
    }
}
