//! Records single visits, and estimates single segments.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use scopeguard::ScopeGuard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock::{Clock, ClockSync};
use super::concurrency_limit::ConcurrencyLimit;
use super::error::{CostlyReads, Error, TooMany};
use super::group_commit::{GroupCommit, Shard};
use super::lists::Rankings;
use super::members::MemberLimits;
use crate::domain::{Estimate, SegmentName, Timestamp, UserId, Visit, Visits, Window};
use crate::store::diagnostics::Resources;
use crate::store::{self, Batch, CountQuery, Layout, Partitions, Store, shard_of};
use crate::telemetry::{Metrics, VisitMetrics};

/// Records visits and counts the users of a segment. Cheap to clone; clones share everything.
///
/// Never reads a clock: `now` is an argument, and counts are those of that moment.
#[derive(Debug, Clone)]
pub struct Estimator {
    pub(super) store: Store,
    pub(super) window: Window,
    /// Has a shard for each partition, so that a hanging server delays only its own visits.
    visits: GroupCommit<Visit<'static>, ()>,
    counts: GroupCommit<CountQuery, Estimate>,
    /// The permits of large batches.
    pub(super) bulk: Arc<Semaphore>,
    list_limit: ConcurrencyLimit,
    pub(super) member_limits: MemberLimits,
    /// The limit on searches for similar names.
    pub(super) searches: Arc<Semaphore>,
    pub(super) rankings: Arc<Rankings>,
}

/// The outcome of a valid visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Redis acknowledged the visit.
    Accepted,
    /// The visit lies outside the window. It can't count, so it wasn't written.
    Expired,
}

/// Updates the metrics for a visit that was not written.
pub(crate) fn measure_failure(metrics: &VisitMetrics, error: &store::Error) {
    match error {
        store::Error::TooManySegments(_) => metrics.rejected(error.kind()),
        error => metrics.failed(error.kind(), 1),
    }
}

impl Estimator {
    /// The limit on concurrent lists without [`Self::with_max_lists`].
    const DEFAULT_MAX_LISTS: usize = 16;
    /// The limit on concurrent lists of members without [`Self::with_max_member_lists`].
    const DEFAULT_MAX_MEMBER_LISTS: usize = 4;
    /// Creates an estimator over `store`, whose members count for `window` after their last visit. Extends the window
    /// of the data set before the first use if it is shorter.
    #[must_use]
    pub fn new(store: Store, window: Window) -> Self {
        let store = store.with_window(window);
        let metrics = store.metrics();
        let (visit_metrics, count_metrics) = (metrics.visit_batches.clone(), metrics.count_batches.clone());
        let visits = GroupCommit::new(store.clone(), visit_metrics, Partitions::MAX.into(), write_visits);
        let counts = GroupCommit::new(store.clone(), count_metrics, 1, count_members);
        let bulk = Self::bulk_permits(&store);
        let list_limit = ConcurrencyLimit::new(CostlyReads::Lists, Self::DEFAULT_MAX_LISTS);
        let member_limits = MemberLimits::new(Self::DEFAULT_MAX_MEMBER_LISTS);
        let searches = Arc::new(Semaphore::new(Self::MAX_SEARCHES));
        Self { store, window, visits, counts, bulk, list_limit, member_limits, searches, rankings: Arc::default() }
    }

    /// Limits concurrent lists to `max`.
    #[must_use]
    pub fn with_max_lists(self, max: usize) -> Self {
        Self { list_limit: ConcurrencyLimit::new(CostlyReads::Lists, max), ..self }
    }

    /// Returns a permit for a request that reads every segment. [`Self::list`] acquires one itself. A server acquires
    /// one for each call of [`Self::segments_of`] and [`Self::delete_user`].
    ///
    /// # Errors
    ///
    /// [`TooMany`] if all permits are taken.
    pub fn acquire_list_permit(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        self.list_limit.try_acquire()
    }

    /// Returns how long a user counts after the last visit.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns how long members are kept: the longest window of any instance.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub(crate) async fn retention(&self) -> Result<Window, store::Error> {
        Ok(self.retention_by(&self.store.layout().await?))
    }

    /// Returns the window that is recorded in Redis; `None` if there is no data set or its record has no window.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub(crate) async fn recorded_window(&self) -> Result<Option<Window>, store::Error> {
        Ok(self.store.existing_layout().await?.and_then(|layout| layout.window()))
    }

    /// Returns for each of `visits` whether Redis has it, or a later one of the same user to the same segment; `None`
    /// if the key of the segment holds something else. Writes nothing.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub(crate) async fn are_kept(&self, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, store::Error> {
        self.store.are_kept(visits).await
    }

    /// The prefix of all keys of the data set.
    pub(crate) fn key_prefix(&self) -> &str {
        self.store.key_prefix().as_str()
    }

    pub(super) fn retention_by(&self, layout: &Layout) -> Window {
        layout.window().map_or(self.window, |kept| kept.max(self.window))
    }

    /// Records `visit`, which restarts the user's window in that segment unless a later visit has. Idempotent: a caller
    /// may retry after an error.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis didn't acknowledge the visit. It may have been written.
    pub async fn record(&self, visit: Visit<'_>, now: Timestamp) -> Result<Recorded, store::Error> {
        let metrics = &self.metrics().visits;
        if self.is_expired(visit.seen_at, now) {
            metrics.expired(1);
            return Ok(Recorded::Expired);
        }
        if self.store.are_sampled_out(&visit.user_id, std::slice::from_ref(&visit.segment)) {
            metrics.sampled_out(1);
            return self.measured(Ok(()));
        }
        // The caller may stop waiting. The outcome of its visit is then unknown.
        let abandoned = scopeguard::guard((), |()| metrics.abandoned(1));
        let written = self.visits.submit(self.shard_of(&visit.user_id), visit.into_owned()).await;
        ScopeGuard::into_inner(abandoned);
        self.measured(written)
    }

    /// Records `visits` together, as [`Self::record`] does each of them. Returns their results, in the order of their
    /// segments.
    pub async fn record_all(&self, visits: &Visits<'_>, now: Timestamp) -> Vec<Result<Recorded, store::Error>> {
        let metrics = &self.metrics().visits;
        let Visits { user_id, segments, seen_at } = visits;
        let count = segments.as_slice().len();
        if self.is_expired(*seen_at, now) {
            metrics.expired(count as u64);
            return vec![Ok(Recorded::Expired); count];
        }
        if self.store.are_sampled_out(user_id, segments.as_slice()) {
            metrics.sampled_out(count as u64);
            return segments.as_slice().iter().map(|_| self.measured(Ok(()))).collect();
        }
        let abandoned = scopeguard::guard((), |()| metrics.abandoned(count as u64));
        let written = self.visits.submit_all(self.shard_of(user_id), visits.each().collect()).await;
        ScopeGuard::into_inner(abandoned);
        written.into_iter().map(|written| self.measured(written)).collect()
    }

    /// Returns the shard of a user's visits. Until the number of partitions is known, all share one.
    fn shard_of(&self, user_id: &UserId<'_>) -> Shard {
        let partitions = self.store.partitions().unwrap_or(Partitions::ONE);
        Shard { index: shard_of(user_id, partitions), count: partitions.count() }
    }

    /// Updates the metrics for a visit that was written, or that its segment doesn't keep.
    fn measured(&self, written: Result<(), store::Error>) -> Result<Recorded, store::Error> {
        let metrics = &self.metrics().visits;
        written.inspect_err(|error| measure_failure(metrics, error))?;
        metrics.accepted(1);
        Ok(Recorded::Accepted)
    }

    /// Returns whether a visit of this time lies outside the window at `now`, so that it need not be written.
    #[must_use]
    pub fn is_expired(&self, seen_at: Timestamp, now: Timestamp) -> bool {
        seen_at <= self.window.cutoff(now)
    }

    /// Returns the number of partitions, or `None` before the layout is known.
    #[must_use]
    pub fn partitions(&self) -> Option<Partitions> {
        self.store.partitions()
    }

    /// Whether large segments keep a sample of their users; `false` before the layout is known.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.store.is_bounded()
    }

    /// Returns the number of segments that keep a sample, and how full the fullest one is relative to its bound; `None`
    /// if unknown, or if segments aren't bounded.
    #[must_use]
    pub fn samples(&self) -> (Option<u64>, Option<f64>) {
        (self.store.sampled_segment_count(), self.store.max_fill_ratio())
    }

    /// Returns the depth of `segment`; `None` if unknown.
    #[must_use]
    pub fn depth_of(&self, segment: &SegmentName<'_>) -> Option<u8> {
        self.store.depth_of(segment)
    }

    /// Counts the users in `segment` at `now`: those whose last visit is less than the window ago. An unknown segment
    /// has 0. The count is exact unless the segment keeps a sample.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed. A count never leaves out a server.
    pub async fn estimate(&self, segment: &SegmentName<'_>, now: Timestamp) -> Result<Estimate, store::Error> {
        self.count(segment, self.window.cutoff(now)).await
    }

    /// Counts as [`Estimator::estimate`] does, over a shorter window.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate`], and [`Error::WindowTooLong`] if `window` is longer than [`Estimator::window`].
    pub async fn estimate_within(
        &self,
        segment: &SegmentName<'_>,
        window: Window,
        now: Timestamp,
    ) -> Result<Estimate, Error> {
        self.check_window(window)?;
        Ok(self.count(segment, window.cutoff(now)).await?)
    }

    async fn count(&self, segment: &SegmentName<'_>, cutoff: Timestamp) -> Result<Estimate, store::Error> {
        self.counts.submit(Shard::ONLY, CountQuery { segment: segment.clone().into_owned(), cutoff }).await
    }

    /// Refuses a window of which some members may be pruned.
    pub(super) fn check_window(&self, window: Window) -> Result<(), Error> {
        if window > self.window { Err(Error::WindowTooLong(self.window)) } else { Ok(()) }
    }

    /// Counts the segments in the index, which may have members.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn segment_count(&self) -> Result<u64, store::Error> {
        self.store.index_size().await
    }

    /// Returns the memory and the persistence of Redis, and what it evicts.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn resources(&self) -> Result<Resources, store::Error> {
        self.store.resources().await
    }

    /// Returns the metrics of the service.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }

    /// Updates the queue-length gauges.
    pub fn measure_pending(&self) {
        self.visits.measure_pending();
        self.counts.measure_pending();
    }

    /// Synchronizes `clock` with Redis's. Writes nothing.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub(crate) async fn sync_clock(&self, clock: &Clock) -> Result<ClockSync, store::Error> {
        clock.sync(&self.store).await
    }

    /// Synchronizes `clock` with Redis's, and makes sure that the layout of the data is known.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed, or its data has another layout than the settings ask for.
    pub async fn sync(&self, clock: &Clock) -> Result<ClockSync, store::Error> {
        let sync = self.sync_clock(clock).await?;
        self.store.check_layout().await?;
        Ok(sync)
    }

    /// Checks that Redis can serve.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if it can't.
    pub async fn ready(&self) -> Result<(), store::Error> {
        self.store.ping().await
    }
}

/// Writes a batch of single visits.
async fn write_visits(store: Store, visits: Vec<Visit<'static>>) -> Vec<Result<(), store::Error>> {
    let mut batch = Batch::with_capacity(visits.len());
    visits.iter().for_each(|visit| batch.add(visit));
    let written = store.write(&batch).await;
    store.metrics().visits.sampled_out(written.sampled_out());
    (0..visits.len()).map(|index| written.result(index).map_err(Clone::clone)).collect()
}

/// Counts a batch of segments. Equal requests share a count: it is sent after all of them arrived, so it includes every
/// visit that was acknowledged before.
async fn count_members(store: Store, requests: Vec<CountQuery>) -> Vec<Result<Estimate, store::Error>> {
    let mut distinct = Vec::with_capacity(requests.len());
    let mut indices = HashMap::with_capacity_and_hasher(requests.len(), RandomState::default());
    let index_of = |request| {
        *indices.entry(request).or_insert_with(|| {
            distinct.push(request);
            distinct.len() - 1
        })
    };
    let indices: Vec<usize> = requests.iter().map(index_of).collect();
    match store.counts(&distinct).await {
        Ok(counts) => indices.into_iter().map(|index| counts[index].clone()).collect(),
        Err(error) => vec![Err(error); requests.len()],
    }
}
