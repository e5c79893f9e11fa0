//! How many segments there may be.
//!
//! An instance knows the number of segments from its last look at the index, and adds what its own writes have added since: Redis
//! tells that in its answer to each of them. A write first reserves room for all of its segments, as if they were new. Only if there
//! isn't enough, its names are looked up in the index, and those that are new and too many are refused, once the writes in flight have
//! told what they added. Without a look, such a sum is an upper bound: a name that is new in one partition may be known in another. So
//! nothing is refused by it before another look.
//!
//! So the limit costs nothing below it. Instances may exceed it by what they have added since their last looks. In partitions the limit is on the number of different names, however many partitions each is in.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

/// A limit on the number of segments, and what is known of it.
#[derive(Debug)]
pub(super) struct SegmentLimit {
    max: u64,
    state: Mutex<State>,
    /// Tells that a reservation has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Names in the index; `None` before the first look.
    names: Option<u64>,
    /// Names that writes in flight may add.
    reserved: u64,
    /// Names that writes of this instance have added since it started.
    added: u64,
    /// How many of them may have been there already, in other partitions.
    estimated: u64,
    /// As much of that as the last look has corrected.
    corrected: u64,
    /// When the last look began, and how long it took.
    look: Option<(Instant, Duration)>,
    /// Names that were found in the index, so that they aren't looked up for each write.
    found: HashSet<Box<str>, RandomState>,
}

/// Room for the new segments of a write in flight.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    limit: &'a SegmentLimit,
    /// For how many.
    pub(super) names: u64,
    /// Whether all of them were looked up, and are new.
    is_exact: bool,
}

/// A look at the index that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    began: Instant,
    /// What was added before: the look sees it for sure.
    added: u64,
    /// The part of it that is an estimate.
    estimated: u64,
}

impl SegmentLimit {
    /// The shortest time between two looks that writes ask for.
    const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
    /// How many times as long as a look takes is waited before the next, so that looks at many partitions don't keep Redis busy.
    const REST: u32 = 20;

    pub(super) fn new(max: u64) -> Self {
        Self { max, state: Mutex::default(), ended: Notify::new() }
    }

    /// How many segments there may be.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Whether there was no look at the index yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.state().names.is_none()
    }

    /// Reserves room for `names`, if there is as much.
    pub(super) fn reserve(&self, names: u64) -> Option<Reservation<'_>> {
        let mut state = self.state();
        if names > 0 && state.names.unwrap_or_default() + state.reserved + names > self.max {
            return None;
        }
        state.reserved += names;
        Some(Reservation { limit: self, names, is_exact: false })
    }

    /// Whether there may be fewer segments than is known: a name that a write adds to the index of one partition may be in that of
    /// another.
    pub(super) fn is_estimate(&self) -> bool {
        let state = self.state();
        state.estimated > state.corrected
    }

    /// Reserves room for `names` that are new, or for as many of them as there is room for.
    pub(super) fn reserve_up_to(&self, names: u64) -> Reservation<'_> {
        let mut state = self.state();
        let room = self.max.saturating_sub(state.names.unwrap_or_default() + state.reserved);
        let names = names.min(room);
        state.reserved += names;
        Reservation { limit: self, names, is_exact: true }
    }

    /// Reserves room for `names` that are new, or for as many of them as there is room for. Writes in flight may have reserved more than
    /// they add, so waits for these, up to `patience`, before it gives less.
    pub(super) async fn reserve_new(&self, names: u64, patience: Duration) -> Reservation<'_> {
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
        let reservation = tokio::time::timeout(patience, waiting).await;
        reservation.unwrap_or_else(|_| self.reserve_up_to(names))
    }

    /// The indices of those of `names` that weren't found in the index lately.
    pub(super) fn not_found<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
        let state = self.state();
        let names = names.into_iter().enumerate();
        names.filter(|(_, name)| !state.found.contains(*name)).map(|(index, _)| index).collect()
    }

    /// Notes that `names` were found in the index.
    pub(super) fn remember_found<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.state().found.extend(names.into_iter().map(Box::from));
    }

    /// Begins a look at the index.
    pub(super) fn begin_look(&self) -> Look {
        let mut state = self.state();
        let look = Look { began: Instant::now(), added: state.added, estimated: state.estimated };
        let took = state.look.map_or(Duration::ZERO, |(_, took)| took);
        state.look = Some((look.began, took));
        look
    }

    /// As [`Self::begin_look`], unless the last was only just now.
    pub(super) fn begin_look_if_due(&self) -> Option<Look> {
        let last = self.state().look;
        let is_due = last.is_none_or(|(began, took)| began.elapsed() >= Self::BETWEEN_LOOKS.max(took * Self::REST));
        is_due.then(|| self.begin_look())
    }

    /// A look has found so many names.
    pub(super) fn end_look(&self, look: Look, names: u64) {
        let mut state = self.state();
        state.names = Some(names + (state.added - look.added));
        state.corrected = state.corrected.max(look.estimated);
        state.look = Some((look.began, look.began.elapsed()));
        // Pruning may have dropped some of them.
        state.found.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// The same, of names that were looked up and are new.
    fn exact(mut self) -> Self {
        self.is_exact = true;
        self
    }

    /// The write has added so many names to indexes. A name that is new in several partitions is counted in each of them, and adds one
    /// segment at most.
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
    fn room_is_reserved_until_a_write_ends_and_what_it_added_stays() {
        let limit = SegmentLimit::new(10);
        assert!(limit.is_unknown());
        limit.end_look(limit.begin_look(), 6);
        let first = limit.reserve(3).unwrap();
        assert!(limit.reserve(2).is_none(), "one is left");
        assert_eq!(limit.reserve_up_to(5).names, 1);
        first.added(1);
        let second = limit.reserve(3).unwrap();
        assert_eq!(limit.reserve_up_to(1).names, 0);
        drop(second);
        assert_eq!(limit.reserve_up_to(9).names, 3, "7 of 10 are there");
    }

    #[tokio::test]
    async fn new_names_wait_for_writes_in_flight_before_they_are_refused() {
        let limit = SegmentLimit::new(10);
        limit.end_look(limit.begin_look(), 5);
        let day = Duration::from_secs(86_400);
        let in_flight = limit.reserve(4).unwrap();
        let ending = async {
            tokio::task::yield_now().await;
            in_flight.added(1);
        };
        let (reservation, ()) = tokio::join!(limit.reserve_new(3, day), ending);
        assert_eq!(reservation.names, 3, "6 of 10 are there");
        drop(reservation);
        assert_eq!(limit.reserve_new(9, day).await.names, 4, "nothing is in flight");
        let _in_flight = limit.reserve(4).unwrap();
        assert_eq!(limit.reserve_new(1, Duration::from_millis(1)).await.names, 0);
    }

    #[test]
    fn look_counts_what_was_added_while_it_went_on() {
        let limit = SegmentLimit::new(10);
        let look = limit.begin_look();
        limit.reserve(2).unwrap().added(2);
        limit.end_look(look, 5);
        assert_eq!(limit.reserve_up_to(10).names, 3);
        limit.end_look(limit.begin_look(), 12);
        assert_eq!(limit.reserve_up_to(10).names, 0, "there may be more already");
        assert!(limit.begin_look_if_due().is_none(), "the last was just now");
    }

    #[test]
    fn found_names_are_known_until_the_next_look() {
        let limit = SegmentLimit::new(1);
        limit.remember_found(["a", "c"]);
        assert_eq!(limit.not_found(["a", "b", "c", "d"]), [1, 3]);
        limit.end_look(limit.begin_look(), 2);
        assert_eq!(limit.not_found(["a", "b"]), [0, 1]);
    }
}
