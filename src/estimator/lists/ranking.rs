//! The order by count, shared by the lists that need it at the same time or shortly after each other.
//!
//! It takes a count of every segment, whatever the page. One walk over all segments answers every list of the same window and prefix
//! that arrives while the walk is running, and for a second those that arrive later. Small data sets are cheap to count, so there a
//! list shares only a walk that began after the list was asked for: it shows every visit that was acknowledged before.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::list::{CountedSegment, List, ListCursor, page};
use crate::domain::{Timestamp, Window};
use crate::estimator::concurrency_limit::TooMany;
use crate::estimator::error::Error;
use crate::store;

/// The first segments in the order of counts.
#[derive(Debug)]
pub(super) struct Ranking {
    /// At most [`Self::MAX_LIMIT`] and one more, which tells that there are further ones.
    pub(super) segments: Vec<CountedSegment>,
    /// How many segments were counted for it.
    pub(super) counted: usize,
    /// The moment that the counts are of.
    pub(super) as_of: Timestamp,
}

impl Ranking {
    /// The most segments on a page that is taken from a ranking.
    pub(super) const MAX_LIMIT: usize = 1_000;
    /// With so many segments, a ranking answers lists that were asked for after it began.
    const MIN_SHARED: usize = 1_000;

    /// The page of `limit` segments behind `after`, unless it reaches beyond the ranking.
    pub(super) fn page(&self, after: Option<&ListCursor>, limit: usize) -> Option<List> {
        let is_complete = self.segments.len() <= Self::MAX_LIMIT;
        let behind = self.segments.iter().filter(|counted| after.is_none_or(|after| counted.comes_after(after)));
        let segments: Vec<_> = behind.take(limit.saturating_add(1)).cloned().collect();
        (is_complete || segments.len() > limit).then(|| page(segments, limit, self.as_of))
    }

    fn is_shared_later(&self) -> bool {
        self.counted >= Self::MIN_SHARED
    }
}

/// The walk that makes a ranking. It ends early when the last caller that waits for it is dropped, and not before.
pub(super) type Walk = Shared<BoxFuture<'static, Result<Arc<Ranking>, store::Error>>>;

/// What a ranking is of: a window, and what the names begin with.
type Key = (Window, String);

/// The rankings that are being made, and those made within the last second.
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
    /// The callers that wait for it hold the walk.
    Running(WeakShared<BoxFuture<'static, Result<Arc<Ranking>, store::Error>>>),
    Done(Arc<Ranking>),
}

enum Found {
    Running(u64, Walk),
    Done(Arc<Ranking>),
}

impl Rankings {
    /// How long a ranking is shared after the moment that it is of.
    const SHARED_FOR: Duration = Duration::from_secs(1);
    /// How long after its begin a walk is joined. Requests take no longer than that by default.
    const JOINED_FOR: Duration = Duration::from_secs(30);
    /// How many finished rankings are kept, until a list finds them too old. Each takes up to 200 KB.
    const MAX_KEPT: usize = 8;

    /// The ranking of `key` at `now` or shortly before, by the walk that `start` starts if there is none to share.
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
            // The next walk begins after the arrival, so there are at most two.
            if number >= arrival || ranking.is_shared_later() {
                return Ok(ranking);
            }
        }
    }

    /// The ranking of `key` that was made within the last second, if there is one.
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

    /// Keeps the ranking that the walk `number` has made, if it is shared later. Errors are not kept.
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

/// Whether `as_of` lies at most `distance` before `now`, or after it: callers' times may overtake each other.
fn is_near(as_of: Timestamp, now: Timestamp, distance: Duration) -> bool {
    as_of + distance >= now && now + distance >= as_of
}

impl fmt::Debug for Rankings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rankings").field("entries", &self.lock().entries.len()).finish()
    }
}
