//! Reading the members of several segments.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use super::join::{HashJoin, HashRange};
use super::mask_counts::{MaskCounts, Overlap};
use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::concurrency_limit::{ConcurrencyLimit, CostlyReads, TooMany};
use crate::store::{self, Layout, Partition, Store};

/// Answers how many users several segments have in common. Cheap to clone; clones share the limits.
#[derive(Debug, Clone)]
pub struct Overlaps {
    store: Store,
    window: Window,
    limits: OverlapLimits,
    /// For those that are asked at the same time.
    limit: ConcurrencyLimit,
    /// For slices that Redis reads for them at the same time.
    slices: Arc<Semaphore>,
}

/// What overlaps may take.
#[derive(Debug, Clone, Copy)]
pub struct OverlapLimits {
    /// How long each may take.
    pub timeout: Duration,
    /// How many may be asked at the same time.
    pub concurrency: usize,
    /// Memory that each may take for its users, in bytes; [`Overlaps::MAX_MEMORY`] for the service. With less, the members are read
    /// more often.
    pub memory: usize,
}

/// Why an overlap is not known.
#[derive(Debug, thiserror::Error)]
pub enum OverlapError {
    /// The window is longer than the one that members are kept for, which is given.
    #[error("must not be longer than the configured window of {0}")]
    WindowTooLong(Window),
    /// As many as may be asked at the same time are being answered.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// It took too long.
    #[error("the overlap was not known within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Redis didn't answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Overlaps {
    /// The fewest segments that overlap.
    pub const MIN_SEGMENTS: usize = 2;
    /// The most segments of one overlap.
    pub const MAX_SEGMENTS: usize = 8;
    /// Memory that the users of one overlap may take, in bytes.
    pub const MAX_MEMORY: usize = 64 * 1024 * 1024;
    /// How many slices Redis reads for all overlaps in a row, at the most, so that it has always one to read. While visits are
    /// written it is one: they wait no longer than for this.
    const MAX_SLICES: u32 = 2;
    /// How often the data may move to other partitions while one overlap is read.
    const MAX_ATTEMPTS: usize = 4;

    /// Overlaps over `store`, whose members count for `window` after their last visit.
    #[must_use]
    pub fn new(store: Store, window: Window, limits: OverlapLimits) -> Self {
        let limit = ConcurrencyLimit::new(CostlyReads::Overlaps, limits.concurrency);
        let slices = Arc::new(Semaphore::new(Self::MAX_SLICES as usize));
        Self { store: store.with_window(window), window, limits, limit, slices }
    }

    /// What the users of `segments`, [`Self::MIN_SEGMENTS`] to [`Self::MAX_SEGMENTS`] different ones, have in common: those who were seen within
    /// `window` before `now`. The module's documentation says how visits count that are written meanwhile.
    ///
    /// # Errors
    ///
    /// An [`OverlapError`]. A number is never guessed.
    pub async fn of(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: Timestamp,
    ) -> Result<Overlap, OverlapError> {
        if window > self.window {
            return Err(OverlapError::WindowTooLong(self.window));
        }
        let _permit = self.limit.try_acquire()?;
        let reading = self.read(segments, window.cutoff(now));
        let tally = tokio::time::timeout(self.limits.timeout, reading).await;
        Ok(tally.map_err(|_| OverlapError::Timeout(self.limits.timeout))??.overlap())
    }

    async fn read(&self, segments: &[SegmentName<'static>], cutoff: Timestamp) -> Result<MaskCounts, store::Error> {
        let mut layout = self.store.layout().await?;
        for _ in 0..Self::MAX_ATTEMPTS {
            if let Some(tally) = self.read_by(&layout, segments, cutoff).await? {
                return Ok(tally);
            }
            layout = self.store.layout_again().await?;
        }
        Err(store::Error::UnknownLayout)
    }

    /// Reads all partitions that `layout` has; nothing if another layout came into force meanwhile.
    async fn read_by(
        &self,
        layout: &Layout,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<Option<MaskCounts>, store::Error> {
        let mut sum = MaskCounts::new(segments.len());
        for partition in layout.read().all() {
            let mut share = Some(HashRange::ALL);
            while let Some(now) = share {
                let join = Arc::new(Mutex::new(HashJoin::new(segments.len(), now, self.limits.memory)));
                let reading = segments.iter().enumerate();
                let reading =
                    reading.map(|(place, segment)| self.read_segment(partition, segment, cutoff, place, &join));
                try_join_all(reading).await?;
                let join = join.lock().unwrap_or_else(PoisonError::into_inner);
                sum.add(join.counts());
                share = join.range().next();
            }
            if !self.store.is_in_force(layout, partition).await? {
                return Ok(None);
            }
        }
        Ok(Some(sum))
    }

    /// Has the members of `segment` joined as those of the segment that is at this `place`.
    async fn read_segment(
        &self,
        partition: Partition,
        segment: &SegmentName<'static>,
        cutoff: Timestamp,
        place: usize,
        join: &Arc<Mutex<HashJoin>>,
    ) -> Result<(), store::Error> {
        let mut cursor = self.store.members_after(partition, segment, cutoff).await?;
        loop {
            let (names, next) = {
                let turns = if self.store.is_writing() { Self::MAX_SLICES } else { 1 };
                let _turns = self.slices.acquire_many(turns).await.expect("nobody closes the semaphore");
                self.store.member_names(partition, segment, cutoff, &cursor).await?
            };
            let join = Arc::clone(join);
            // A table that grows takes longer than those wait whom this thread serves.
            let joining = tokio::task::spawn_blocking(move || {
                join.lock().unwrap_or_else(PoisonError::into_inner).add(place, &names);
            });
            joining.await.expect("joining doesn't panic, and nobody cancels it");
            match next {
                Some(next) => cursor = next,
                None => return Ok(()),
            }
        }
    }
}
