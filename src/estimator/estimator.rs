//! Recording single visits, and estimating single segments.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::clock::{Clock, Comparison};
use super::concurrency_limit::{ConcurrencyLimit, CostlyReads, TooMany};
use super::counter::Counter;
use super::error::EstimateError;
use super::lists::Rankings;
use super::writer::{BulkWrite, Writer};
use crate::domain::{SegmentName, Timestamp, Visit, Window};
use crate::store::diagnostics::Eviction;
use crate::store::{self, Layout, Partitions, Store};
use crate::telemetry::{Metrics, VisitMetrics};

/// Records visits and counts the users of a segment. Cheap to clone; clones share everything.
///
/// It never reads a clock: `now` is an argument, and the answers are exact for it.
#[derive(Debug, Clone)]
pub struct Estimator {
    pub(super) store: Store,
    pub(super) window: Window,
    writer: Writer,
    counter: Counter,
    list_limit: ConcurrencyLimit,
    pub(super) rankings: Arc<Rankings>,
}

/// What became of a valid visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Redis has acknowledged it.
    Accepted,
    /// It lies outside the window already. Nothing was written, since it could not count.
    Expired,
}

/// A visit whose caller waits. Dropped when the caller no longer does; whether it is written is then not known to anybody.
struct Unanswered<'a>(&'a VisitMetrics);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.abandoned();
    }
}

/// Counts a visit that was not written.
pub(crate) fn measure_failure(metrics: &VisitMetrics, error: &store::Error) {
    match error {
        store::Error::TooManySegments(_) => metrics.rejected(error.kind()),
        error => metrics.failed(error.kind(), 1),
    }
}

impl Estimator {
    /// How many lists are made at a time without [`Self::with_max_lists`].
    const DEFAULT_MAX_LISTS: usize = 16;

    /// An estimator over `store`, whose members count for `window` after their last visit. A data set that keeps them for less is
    /// extended before it is used.
    #[must_use]
    pub fn new(store: Store, window: Window) -> Self {
        let store = store.with_window(window);
        let (writer, counter) = (Writer::new(store.clone()), Counter::new(store.clone()));
        let list_limit = ConcurrencyLimit::new(CostlyReads::Lists, Self::DEFAULT_MAX_LISTS);
        Self { store, window, writer, counter, list_limit, rankings: Arc::default() }
    }

    /// Limits the lists that are made at a time to `max`.
    #[must_use]
    pub fn with_max_lists(self, max: usize) -> Self {
        Self { list_limit: ConcurrencyLimit::new(CostlyReads::Lists, max), ..self }
    }

    /// Returns a permit for a request that visits every segment. [`Self::list`] takes one itself. A server takes one for each
    /// call of [`Self::segments_of`] and [`Self::forget`].
    ///
    /// # Errors
    ///
    /// [`TooMany`] when as many such requests are under way as may be.
    pub fn acquire_list_permit(&self) -> Result<OwnedSemaphorePermit, TooMany> {
        self.list_limit.try_acquire()
    }

    /// How long a user stays in a segment after the last visit.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// How long members are kept: as long as any instance counts them.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer.
    pub(crate) async fn retention(&self) -> Result<Window, store::Error> {
        Ok(self.retention_by(&self.store.layout().await?))
    }

    pub(super) fn retention_by(&self, layout: &Layout) -> Window {
        layout.window().map_or(self.window, |kept| kept.max(self.window))
    }

    /// Records `visit`, which starts the user's window in that segment anew unless a later visit has done so already.
    /// Recording the same visit again changes nothing, so a caller that got an error may simply repeat it.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't acknowledge the visit. It may or may not have been written.
    pub async fn record(&self, visit: Visit<'_>, now: Timestamp) -> Result<Recorded, store::Error> {
        let metrics = &self.metrics().visits;
        if self.is_expired(&visit, now) {
            metrics.expired();
            return Ok(Recorded::Expired);
        }
        let unanswered = Unanswered(metrics);
        let written = self.writer.write(visit.into_owned()).await;
        std::mem::forget(unanswered);
        written.inspect_err(|error| measure_failure(metrics, error))?;
        metrics.accepted(1);
        Ok(Recorded::Accepted)
    }

    /// Whether `visit` lies outside the window at `now`, and so is not worth writing.
    #[must_use]
    pub fn is_expired(&self, visit: &Visit<'_>, now: Timestamp) -> bool {
        visit.seen_at <= self.window.cutoff(now)
    }

    /// How many partitions there are, if that is known by now.
    #[must_use]
    pub fn partitions(&self) -> Option<Partitions> {
        self.store.partitions()
    }

    /// Waits for leave to record a large batch. [`Ingest`](crate::ingest::Ingest) makes such batches.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when no permit is free in time.
    pub async fn bulk_write(&self) -> Result<BulkWrite, store::Error> {
        self.writer.bulk_write().await
    }

    /// The number of users in `segment` at `now`: those whose last visit is less than the window ago. A segment that
    /// nobody is in counts 0.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer. A count is never guessed.
    pub async fn estimate(&self, segment: &SegmentName<'_>, now: Timestamp) -> Result<u64, store::Error> {
        self.counter.count(segment.clone().into_owned(), self.window.cutoff(now)).await
    }

    /// As [`Estimator::estimate`], with a shorter window.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate`], and when `window` is longer than [`Estimator::window`]: of the members that only the
    /// longer one takes in, some may be pruned already.
    pub async fn estimate_within(
        &self,
        segment: &SegmentName<'_>,
        window: Window,
        now: Timestamp,
    ) -> Result<u64, EstimateError> {
        self.check_window(window)?;
        Ok(self.counter.count(segment.clone().into_owned(), window.cutoff(now)).await?)
    }

    /// Refuses a window for which some members may be gone already.
    pub(super) fn check_window(&self, window: Window) -> Result<(), EstimateError> {
        if window > self.window { Err(EstimateError::WindowTooLong(self.window)) } else { Ok(()) }
    }

    /// How many segments there are that may have members.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer.
    pub async fn segments_known(&self) -> Result<u64, store::Error> {
        self.store.index_size().await
    }

    /// What Redis does with our keys when its memory is full, and how many it has evicted.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer.
    pub async fn eviction(&self) -> Result<Eviction, store::Error> {
        self.store.eviction().await
    }

    /// What the service is measured with.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }

    /// Has those who wait for Redis now measured.
    pub fn measure_waiting(&self) {
        let metrics = self.metrics();
        metrics.visit_rounds.set_waiting(self.writer.waiting());
        metrics.count_rounds.set_waiting(self.counter.waiting());
    }

    /// Compares `clock` with Redis's: see [`Clock::compare_with`]. Sees that the layout of the data is known, too.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer, or has another layout than it must.
    pub async fn compare_clock(&self, clock: &Clock) -> Result<Comparison, store::Error> {
        let comparison = clock.compare_with(&self.store).await?;
        self.store.check_layout().await?;
        Ok(comparison)
    }

    /// Asks Redis whether it can serve.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if not.
    pub async fn ready(&self) -> Result<(), store::Error> {
        self.store.ping().await
    }
}
