//! Reads the members of several segments in slices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use super::audience::{Audience, AudienceCount};
use super::error::OverlapError;
use super::join::{HashJoin, HashRange};
use super::mask_counts::MaskCounts;
use super::mask_estimates::{MaskEstimates, Overlap};
use super::queue::ReadQueue;
use super::shared_reads::{ReadOutcome, SharedReads};
use crate::domain::{Depth, SegmentName, Timestamp, Window};
use crate::store::{self, Layout, Partition, SegmentKey, Store};

/// Counts the users that several segments have in common. Cheap to clone; clones share the limits.
#[derive(Debug, Clone)]
pub struct Overlaps {
    store: Store,
    window: Window,
    limits: OverlapLimits,
    /// The limit on concurrent overlaps.
    queue: ReadQueue,
    reads: SharedReads,
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
    /// How long an overlap waits for others; the service uses [`Overlaps::MAX_WAIT`].
    pub wait: Duration,
    /// Memory for the users of an overlap, in bytes; the service uses [`Overlaps::MAX_MEMORY`]. With less, members are
    /// read more often.
    pub memory: usize,
}

impl Overlaps {
    /// The fewest segments of an overlap.
    pub const MIN_SEGMENTS: usize = 2;
    /// The most segments of an overlap.
    pub const MAX_SEGMENTS: usize = 8;
    /// Memory for the users of an overlap, in bytes.
    pub const MAX_MEMORY: usize = 64 * 1024 * 1024;
    /// How long an overlap waits for others: longer than four overlaps of two segments of a million users take, and
    /// shorter than clients usually wait for an answer.
    pub const MAX_WAIT: Duration = Duration::from_secs(15);
    /// Slices in flight for all overlaps, so that Redis always has one to read. While visits are written it is one, so
    /// that a visit waits for one slice at most.
    const MAX_SLICES: u32 = 2;
    /// How often the layout may change during an overlap.
    const MAX_ATTEMPTS: usize = 4;

    /// Creates overlaps over `store`, whose members count for `window` after their last visit.
    #[must_use]
    pub fn new(store: Store, window: Window, limits: OverlapLimits) -> Self {
        let queue = ReadQueue::new(limits.concurrency, limits.wait, store.metrics().overlaps.clone());
        let slices = Arc::new(Semaphore::new(Self::MAX_SLICES as usize));
        Self { store: store.with_window(window), window, limits, queue, reads: SharedReads::default(), slices }
    }

    /// Refuses the overlaps that wait, and all later ones, with [`OverlapError::Stopping`]. Those that run continue.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Counts the users that `segments` have in common, within `window` before `now`. There must be
    /// [`Self::MIN_SEGMENTS`] to [`Self::MAX_SEGMENTS`] different segments. See the module for visits during the read.
    ///
    /// Joins a read of the same segments and window that is in flight, in whatever order they are. Returns the time
    /// that the numbers are exact for. Evaluates `now` when the read begins, after the wait in the queue: members that
    /// expired before may be pruned.
    ///
    /// # Errors
    ///
    /// An [`OverlapError`]. A number is never approximate.
    pub async fn overlap(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: impl Future<Output = Result<Timestamp, store::Error>> + Send + 'static,
    ) -> Result<(Overlap, Timestamp), OverlapError> {
        let (counts, as_of) = self.count_masks(segments, window, now).await?;
        Ok((counts.overlap(), as_of))
    }

    /// Counts the users of `audience` as [`Self::overlap`] does. It must name 1 to [`Self::MAX_SEGMENTS`] different
    /// segments.
    ///
    /// # Errors
    ///
    /// As [`Self::overlap`].
    pub async fn count(
        &self,
        audience: &Audience,
        window: Window,
        now: impl Future<Output = Result<Timestamp, store::Error>> + Send + 'static,
    ) -> Result<(AudienceCount, Timestamp), OverlapError> {
        let segments: Vec<_> = audience.segments().cloned().collect();
        let (counts, as_of) = self.count_masks(&segments, window, now).await?;
        let within = |index: usize| counts.count(|mask| mask >> index & 1 == 1 && audience.includes(mask));
        let counted = AudienceCount {
            count: counts.count(|mask| audience.includes(mask)),
            counts: counts.segment_counts(),
            counts_within: (0..segments.len()).map(within).collect(),
        };
        Ok((counted, as_of))
    }

    async fn count_masks(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: impl Future<Output = Result<Timestamp, store::Error>> + Send + 'static,
    ) -> Result<(MaskEstimates, Timestamp), OverlapError> {
        if window > self.window {
            return Err(OverlapError::WindowTooLong(self.window));
        }
        let mut sorted = segments.to_vec();
        sorted.sort_unstable();
        let key = (sorted, window);
        let start = || {
            let (overlaps, segments) = (self.clone(), key.0.clone());
            async move { overlaps.read_in_turn(&segments, window, now).await }.boxed()
        };
        let (counts, as_of) = self.reads.get(&key, start).await?;
        let index = |segment| key.0.binary_search(segment).expect("the key has all segments");
        let order: Vec<usize> = segments.iter().map(index).collect();
        Ok((counts.in_order(&order), as_of))
    }

    /// Reads when there is a permit.
    async fn read_in_turn(
        &self,
        segments: &[SegmentName<'static>],
        window: Window,
        now: impl Future<Output = Result<Timestamp, store::Error>>,
    ) -> ReadOutcome {
        let _permit = self.queue.acquire().await?;
        let as_of = now.await?;
        let timeout = self.limits.timeout;
        let counts = tokio::time::timeout(timeout, self.read(segments, window.cutoff(as_of))).await;
        Ok((Arc::new(counts.map_err(|_| OverlapError::Timeout(timeout))??), as_of))
    }

    async fn read(&self, segments: &[SegmentName<'static>], cutoff: Timestamp) -> Result<MaskEstimates, store::Error> {
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
    ) -> Result<Option<MaskEstimates>, store::Error> {
        let mut sum = MaskEstimates::new(segments.len());
        for partition in layout.read().all() {
            let mut depth = self.store.common_depth(partition, segments, cutoff).await?;
            loop {
                let counts = self.read_partition(partition, depth, segments, cutoff).await?;
                // A raise in the meantime has deleted members. Otherwise the depth was that of all reads.
                let after = self.store.common_depth(partition, segments, cutoff).await?;
                if after <= depth {
                    sum.add(&counts, depth);
                    break;
                }
                depth = after;
            }
            if !self.store.is_in_force(layout, partition).await? {
                return Ok(None);
            }
        }
        Ok(Some(sum))
    }

    /// Reads the users of `partition` in the levels from `depth` on.
    async fn read_partition(
        &self,
        partition: Partition,
        depth: Depth,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<MaskCounts, store::Error> {
        let mut sum = MaskCounts::new(segments.len());
        let keys: Vec<_> =
            partition.segment_keys().filter(|key| key.level.is_none_or(|level| depth.keeps(level))).collect();
        let mut remaining = Some(HashRange::ALL);
        while let Some(range) = remaining {
            let join = Arc::new(Mutex::new(HashJoin::new(segments.len(), range, self.limits.memory)));
            let each = segments.iter().enumerate().flat_map(|each| keys.iter().map(move |key| (each, key)));
            let reading = each.map(|((index, segment), key)| self.read_key(*key, segment, cutoff, index, &join));
            try_join_all(reading).await?;
            let join = join.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(join.counts());
            remaining = join.range().next();
        }
        Ok(sum)
    }

    /// Adds the members of `segment` in `key` to the join, under its `index`.
    async fn read_key(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'static>,
        cutoff: Timestamp,
        index: usize,
        join: &Arc<Mutex<HashJoin>>,
    ) -> Result<(), store::Error> {
        let mut cursor = self.store.members_after(key, segment, cutoff).await?;
        loop {
            let (names, next) = {
                let permits = if self.store.is_writing() { Self::MAX_SLICES } else { 1 };
                let _permits = self.slices.acquire_many(permits).await.expect("the semaphore is never closed");
                self.store.member_names(key, segment, cutoff, &cursor).await?
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
