//! Reads the members of several segments in slices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audience::Audience;
use super::join::{HashJoin, HashRange};
use super::mask_counts::{MaskCounts, Overlap};
use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::concurrency_limit::{ConcurrencyLimit, CostlyReads, TooMany};
use crate::store::{self, Layout, Partition, Store};

/// Counts the users that several segments have in common. Cheap to clone; clones share the limits.
#[derive(Debug, Clone)]
pub struct Overlaps {
    store: Store,
    window: Window,
    limits: OverlapLimits,
    /// The limit on concurrent overlaps.
    limit: ConcurrencyLimit,
    /// The limit on slices in flight.
    slices: Arc<Semaphore>,
}

/// The limits on overlaps.
#[derive(Debug, Clone, Copy)]
pub struct OverlapLimits {
    /// The deadline of an overlap.
    pub timeout: Duration,
    /// The limit on concurrent overlaps.
    pub concurrency: usize,
    /// Memory for the users of an overlap, in bytes; the service uses [`Overlaps::MAX_MEMORY`]. With less, members are
    /// read more often.
    pub memory: usize,
}

/// Why an overlap failed.
#[derive(Debug, thiserror::Error)]
pub enum OverlapError {
    /// The window is longer than the configured one. Some of its members may be pruned.
    #[error("must not be longer than the configured window of {0}")]
    WindowTooLong(Window),
    /// Too many overlaps are running.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The deadline has passed.
    #[error("the overlap was not known within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Redis failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A permit to read the members of several segments once.
#[derive(Debug)]
pub struct OverlapPermit {
    overlaps: Overlaps,
    window: Window,
    _permit: OwnedSemaphorePermit,
}

impl OverlapPermit {
    /// Counts the users that `segments` have in common at `now`. There must be [`Overlaps::MIN_SEGMENTS`] to
    /// [`Overlaps::MAX_SEGMENTS`] different segments. See the module for visits during the read.
    ///
    /// # Errors
    ///
    /// An [`OverlapError`]. A number is never approximate.
    pub async fn overlap(self, segments: &[SegmentName<'static>], now: Timestamp) -> Result<Overlap, OverlapError> {
        Ok(self.count_masks(segments, now).await?.overlap())
    }

    /// Counts the users of `audience` at `now`. It must name 1 to [`Overlaps::MAX_SEGMENTS`] different segments.
    ///
    /// # Errors
    ///
    /// As [`Self::overlap`].
    pub async fn count(self, audience: &Audience, now: Timestamp) -> Result<u64, OverlapError> {
        let counts = self.count_masks(&audience.segments(), now).await?;
        Ok(counts.count(|mask| audience.includes(mask)))
    }

    async fn count_masks(&self, segments: &[SegmentName<'static>], now: Timestamp) -> Result<MaskCounts, OverlapError> {
        let timeout = self.overlaps.limits.timeout;
        let reading = self.overlaps.read(segments, self.window.cutoff(now));
        let counts = tokio::time::timeout(timeout, reading).await;
        Ok(counts.map_err(|_| OverlapError::Timeout(timeout))??)
    }
}

impl Overlaps {
    /// The fewest segments of an overlap.
    pub const MIN_SEGMENTS: usize = 2;
    /// The most segments of an overlap.
    pub const MAX_SEGMENTS: usize = 8;
    /// Memory for the users of an overlap, in bytes.
    pub const MAX_MEMORY: usize = 64 * 1024 * 1024;
    /// Slices in flight for all overlaps, so that Redis always has one to read. While visits are written it is one, so
    /// that a visit waits for one slice at most.
    const MAX_SLICES: u32 = 2;
    /// How often the layout may change during an overlap.
    const MAX_ATTEMPTS: usize = 4;

    /// Creates overlaps over `store`, whose members count for `window` after their last visit.
    #[must_use]
    pub fn new(store: Store, window: Window, limits: OverlapLimits) -> Self {
        let limit = ConcurrencyLimit::new(CostlyReads::Overlaps, limits.concurrency);
        let slices = Arc::new(Semaphore::new(Self::MAX_SLICES as usize));
        Self { store: store.with_window(window), window, limits, limit, slices }
    }

    /// Returns a permit for one read over `window`. Waits in a queue if all are taken, so get the time of the read
    /// afterwards: members that expired before it may be pruned.
    ///
    /// # Errors
    ///
    /// [`OverlapError::WindowTooLong`]. [`OverlapError::TooMany`] if the queue is full or the wait was too long.
    pub async fn acquire(&self, window: Window) -> Result<OverlapPermit, OverlapError> {
        if window > self.window {
            return Err(OverlapError::WindowTooLong(self.window));
        }
        let permit = self.limit.acquire().await?;
        Ok(OverlapPermit { overlaps: self.clone(), window, _permit: permit })
    }

    async fn read(&self, segments: &[SegmentName<'static>], cutoff: Timestamp) -> Result<MaskCounts, store::Error> {
        let mut layout = self.store.layout().await?;
        for _ in 0..Self::MAX_ATTEMPTS {
            if let Some(counts) = self.read_by(&layout, segments, cutoff).await? {
                return Ok(counts);
            }
            layout = self.store.refresh_layout().await?;
        }
        Err(store::Error::UnconfirmedLayout)
    }

    /// Reads all partitions of `layout`. Returns `None` if the layout has changed.
    async fn read_by(
        &self,
        layout: &Layout,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<Option<MaskCounts>, store::Error> {
        let mut sum = MaskCounts::new(segments.len());
        for partition in layout.read().all() {
            let mut remaining = Some(HashRange::ALL);
            while let Some(range) = remaining {
                let join = Arc::new(Mutex::new(HashJoin::new(segments.len(), range, self.limits.memory)));
                let reading = segments.iter().enumerate();
                let reading =
                    reading.map(|(index, segment)| self.read_segment(partition, segment, cutoff, index, &join));
                try_join_all(reading).await?;
                let join = join.lock().unwrap_or_else(PoisonError::into_inner);
                sum.add(join.counts());
                remaining = join.range().next();
            }
            if !self.store.is_in_force(layout, partition).await? {
                return Ok(None);
            }
        }
        Ok(Some(sum))
    }

    /// Adds the members of `segment` to the join, under its `index`.
    async fn read_segment(
        &self,
        partition: Partition,
        segment: &SegmentName<'static>,
        cutoff: Timestamp,
        index: usize,
        join: &Arc<Mutex<HashJoin>>,
    ) -> Result<(), store::Error> {
        let mut cursor = self.store.members_after(partition, segment, cutoff).await?;
        loop {
            let (names, next) = {
                let permits = if self.store.is_writing() { Self::MAX_SLICES } else { 1 };
                let _permits = self.slices.acquire_many(permits).await.expect("the semaphore is never closed");
                self.store.member_names(partition, segment, cutoff, &cursor).await?
            };
            let join = Arc::clone(join);
            // Growing the table would block the other tasks of this thread.
            let joining = tokio::task::spawn_blocking(move || {
                join.lock().unwrap_or_else(PoisonError::into_inner).add(index, &names);
            });
            joining.await.expect("joining doesn't panic and isn't cancelled");
            match next {
                Some(next) => cursor = next,
                None => return Ok(()),
            }
        }
    }
}
