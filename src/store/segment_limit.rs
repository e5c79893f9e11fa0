//! The limit on the number of segments.
//!
//! An instance counts the names in the index from time to time. In between, it adds the names that its own writes add,
//! which Redis reports in the answer to each write. A write first reserves room for all of its segments, as if all were
//! new. Only if there is too little room, it looks its names up in the index, and waits until the writes in flight have
//! reported what they added. Then it refuses the new names that exceed the limit.
//!
//! The running number is an upper bound: a name that is new in one partition may exist in another. Therefore the index
//! is counted again before a write is refused because of an estimate.
//!
//! As a result, the limit costs nothing until it is reached. Instances may exceed it by what they added since their
//! last counts. The limit applies to the number of different names, regardless of the number of partitions that have
//! each name.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

/// The maximum number of segments and the state of the index, as far as this instance knows it.
#[derive(Debug)]
pub(super) struct SegmentLimit {
    max: u64,
    state: Mutex<State>,
    /// Notified when a reservation ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Names in the index; `None` before the first count.
    names: Option<u64>,
    /// Names that writes in flight may add.
    reserved: u64,
    /// Names that writes of this instance have added since it started.
    added: u64,
    /// The part of `added` that may have existed already, in other partitions.
    estimated: u64,
    /// The part of `estimated` that the last count has corrected.
    corrected: u64,
    /// The start of the last count and its duration.
    last_count: Option<(Instant, Duration)>,
    /// Names that were found in the index, cached so that each is looked up once.
    found: HashSet<Box<str>, RandomState>,
}

/// Room for the new segments of a write in flight.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    limit: &'a SegmentLimit,
    /// The number of names that fit.
    pub(super) names: u64,
    /// Whether all of them were looked up and are new.
    is_exact: bool,
}

/// A count of the index in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexCount {
    began: Instant,
    /// [`State::added`] at the start. The count includes all of it.
    added: u64,
    /// [`State::estimated`] at the start.
    estimated: u64,
}

impl SegmentLimit {
    /// The minimum time between the starts of two counts that writes cause.
    const COUNT_INTERVAL: Duration = Duration::from_secs(1);
    /// The minimum time between the starts of two counts, in durations of the first, so that counts over many
    /// partitions take 5 % of Redis's time at most.
    const COUNT_INTERVAL_FACTOR: u32 = 20;

    pub(super) fn new(max: u64) -> Self {
        Self { max, state: Mutex::default(), ended: Notify::new() }
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Whether the index has not been counted yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.state().names.is_none()
    }

    /// Reserves room for `names`; `None` if there is too little.
    pub(super) fn reserve(&self, names: u64) -> Option<Reservation<'_>> {
        let mut state = self.state();
        if names > 0 && state.names.unwrap_or_default() + state.reserved + names > self.max {
            return None;
        }
        state.reserved += names;
        Some(Reservation { limit: self, names, is_exact: false })
    }

    /// Whether the known number of segments may be too high: a name that a write added to the index of one partition
    /// may be in that of another.
    pub(super) fn is_estimate(&self) -> bool {
        let state = self.state();
        state.estimated > state.corrected
    }

    /// Reserves room for `names`, all of which are new, or for as many as fit.
    pub(super) fn reserve_up_to(&self, names: u64) -> Reservation<'_> {
        let mut state = self.state();
        let room = self.max.saturating_sub(state.names.unwrap_or_default() + state.reserved);
        let names = names.min(room);
        state.reserved += names;
        Reservation { limit: self, names, is_exact: true }
    }

    /// Reserves room for `names`, all of which are new, or for as many as fit. Writes in flight may have reserved more
    /// than they add. Therefore waits for them, up to `timeout`, before it reserves less.
    pub(super) async fn reserve_new(&self, names: u64, timeout: Duration) -> Reservation<'_> {
        let waiting = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if let Some(reservation) = self.reserve(names) {
                    return Reservation::exact(reservation);
                }
                if self.state().reserved == 0 {
                    return self.reserve_up_to(names);
                }
                ended.await;
            }
        };
        let reservation = tokio::time::timeout(timeout, waiting).await;
        reservation.unwrap_or_else(|_| self.reserve_up_to(names))
    }

    /// Returns the indices of those of `names` that are not known to be in the index.
    pub(super) fn not_found<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
        let state = self.state();
        let names = names.into_iter().enumerate();
        names.filter(|(_, name)| !state.found.contains(*name)).map(|(index, _)| index).collect()
    }

    /// Records that `names` are in the index.
    pub(super) fn remember_found<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.state().found.extend(names.into_iter().map(Box::from));
    }

    /// Records that the segment `name` was deleted. The next write that finds too little room counts the index again.
    pub(super) fn forget(&self, name: &str) {
        let mut state = self.state();
        state.found.remove(name);
        state.last_count = None;
    }

    /// Begins a count of the index.
    pub(super) fn begin_count(&self) -> IndexCount {
        let mut state = self.state();
        let count = IndexCount { began: Instant::now(), added: state.added, estimated: state.estimated };
        let took = state.last_count.map_or(Duration::ZERO, |(_, took)| took);
        state.last_count = Some((count.began, took));
        count
    }

    /// Begins a count of the index unless the last one is too recent.
    pub(super) fn begin_count_if_due(&self) -> Option<IndexCount> {
        let last = self.state().last_count;
        let is_due = last.is_none_or(|(began, took)| {
            began.elapsed() >= Self::COUNT_INTERVAL.max(took * Self::COUNT_INTERVAL_FACTOR)
        });
        is_due.then(|| self.begin_count())
    }

    /// Records the result of a count: `names`.
    pub(super) fn end_count(&self, count: IndexCount, names: u64) {
        let mut state = self.state();
        state.names = Some(names + (state.added - count.added));
        state.corrected = state.corrected.max(count.estimated);
        state.last_count = Some((count.began, count.began.elapsed()));
        // Pruning may have dropped some of the names.
        state.found.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// Marks all names as looked up and new.
    fn exact(mut self) -> Self {
        self.is_exact = true;
        self
    }

    /// Records that the write added `names` to the indexes. A name that is new in several partitions is counted in each
    /// of them, but adds at most one segment.
    pub(super) fn added(self, names: u64) {
        let names = names.min(self.names);
        let mut state = self.limit.state();
        state.added += names;
        if !self.is_exact {
            state.estimated += names;
        }
        if let Some(known) = &mut state.names {
            *known += names;
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.limit.state().reserved -= self.names;
        if self.names > 0 {
            self.limit.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_holds_room_until_the_write_ends_and_keeps_added_names() {
        let limit = SegmentLimit::new(10);
        assert!(limit.is_unknown());
        limit.end_count(limit.begin_count(), 6);
        let first = limit.reserve(3).unwrap();
        assert!(limit.reserve(2).is_none(), "one name fits");
        assert_eq!(limit.reserve_up_to(5).names, 1);
        first.added(1);
        let second = limit.reserve(3).unwrap();
        assert_eq!(limit.reserve_up_to(1).names, 0);
        drop(second);
        assert_eq!(limit.reserve_up_to(9).names, 3, "7 of 10 exist");
    }

    #[tokio::test]
    async fn reserve_new_waits_for_writes_in_flight() {
        let limit = SegmentLimit::new(10);
        limit.end_count(limit.begin_count(), 5);
        let day = Duration::from_secs(86_400);
        let in_flight = limit.reserve(4).unwrap();
        let ending = async {
            tokio::task::yield_now().await;
            in_flight.added(1);
        };
        let (reservation, ()) = tokio::join!(limit.reserve_new(3, day), ending);
        assert_eq!(reservation.names, 3, "6 of 10 exist");
        drop(reservation);
        assert_eq!(limit.reserve_new(9, day).await.names, 4, "nothing is in flight");
        let _in_flight = limit.reserve(4).unwrap();
        assert_eq!(limit.reserve_new(1, Duration::from_millis(1)).await.names, 0);
    }

    #[test]
    fn end_count_includes_names_added_during_the_count() {
        let limit = SegmentLimit::new(10);
        let count = limit.begin_count();
        limit.reserve(2).unwrap().added(2);
        limit.end_count(count, 5);
        assert_eq!(limit.reserve_up_to(10).names, 3);
        limit.end_count(limit.begin_count(), 12);
        assert_eq!(limit.reserve_up_to(10).names, 0, "the limit is exceeded");
        assert!(limit.begin_count_if_due().is_none(), "the last count is too recent");
    }

    #[test]
    fn forget_makes_a_count_due() {
        let limit = SegmentLimit::new(2);
        limit.end_count(limit.begin_count(), 2);
        limit.remember_found(["a", "b"]);
        assert!(limit.begin_count_if_due().is_none(), "the last count is too recent");
        limit.forget("a");
        assert_eq!(limit.not_found(["a", "b"]), [0]);
        limit.end_count(limit.begin_count_if_due().unwrap(), 1);
        assert_eq!(limit.reserve_up_to(2).names, 1);
    }

    #[test]
    fn not_found_omits_found_names_until_the_next_count() {
        let limit = SegmentLimit::new(1);
        limit.remember_found(["a", "c"]);
        assert_eq!(limit.not_found(["a", "b", "c", "d"]), [1, 3]);
        limit.end_count(limit.begin_count(), 2);
        assert_eq!(limit.not_found(["a", "b"]), [0, 1]);
    }
}
