//! `segment-estimator repartition`: moves the data set to another number of partitions while services write and count.
//!
//! Each phase is recorded in Redis, so another run can resume the move:
//!
//! 1. [`Phase::Backfill`]: services write to both sets of keys. The move copies the members with `GT`, so the order of a copy and a visit
//!    makes no difference. Then it settles users and segments that were deleted in the meantime, and compares the counts of each segment.
//! 2. [`Phase::Cutover`]: services count in the new keys.
//! 3. [`Phase::Cleanup`]: services no longer use the old keys, and the move deletes them.

mod command;
mod settle;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub(super) use self::command::RepartitionCommand;
use super::progress::{Progress, Unit};
use crate::domain::{Estimate, SegmentName, Timestamp, Visit, Window};
use crate::estimator::clock::Clock;
use crate::redis;
use crate::store::diagnostics::EvictionPolicy;
use crate::store::{self, Batch, KeySet, Layout, MaxMembers, Partitions, Phase, Resharding, SegmentKey, Store};

/// A move of the data set to another number of partitions.
#[derive(Debug)]
pub struct Repartition {
    store: Store,
    window: Window,
    clock: Clock,
}

/// The outcome of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The data set already has this number of partitions.
    NothingToDo,
    /// The data set was moved.
    Done {
        /// The members that this run copied.
        members: u64,
        /// The segments whose counts this run compared.
        segments: u64,
    },
}

/// Why a move did not complete. The same command resumes it.
#[derive(Debug, thiserror::Error)]
pub enum RepartitionError {
    /// Redis can't serve, or has an unexpected data set. Nothing was moved.
    #[error("Redis can't serve: {0}")]
    Refused(store::Error),
    /// Redis failed.
    #[error("{0}; the move so far is kept; {remedy}run the same command again", remedy = remedy(.0))]
    Store(#[from] store::Error),
    /// Redis may evict tombstones or copied members. Nothing was moved.
    #[error("Redis {0}, and then run the same command again: a move needs every key to stay")]
    Evicts(EvictionPolicy),
    /// A key that the move would overwrite or delete holds foreign data. Nothing was moved.
    #[error(
        "`{0}` holds data that no move of this data set wrote, and this move would overwrite it; rename or delete that key, and run the \
         same command again; nothing was moved"
    )]
    ForeignKey(String),
    /// A cluster can't keep the keys of one partition together.
    #[error("--to: a cluster needs at least 2 partitions, since the keys of one would be on all servers")]
    OneOnACluster,
    /// A move to other keys is in progress.
    #[error(
        "a move to {}{} is in progress; finish it first with `segment-estimator repartition {}`",
        .0.partitions().in_words(),
        .0.max_members().map_or_else(String::new, |max| format!(" and up to {max} members of a segment")),
        arguments(*.0)
    )]
    AnotherMove(KeySet),
    /// Another process changed the layout.
    #[error(
        "another process is moving the data as well; wait until it ends, and run the same command again if it fails"
    )]
    LayoutChanged,
    /// Old and new keys keep differing in deleted users or segments.
    #[error(
        "deleted users or segments have new visits so often that old and new keys never agree; run the same command again"
    )]
    UnsettledDeletions,
    /// Old and new keys keep differing in a count.
    #[error(
        "{segment} has {old} users in the old keys and {new} in the new ones, and the counts do not converge; nothing was switched, and \
         nothing is lost"
    )]
    CountsDiffer {
        /// The first such segment.
        segment: SegmentName<'static>,
        /// The count in the old keys.
        old: u64,
        /// The count in the new keys.
        new: u64,
    },
}

impl Repartition {
    /// Segments that are copied at a time.
    const CONCURRENCY: usize = 8;
    /// Keys of segments in one request.
    const KEYS_PER_REQUEST: usize = 500;
    /// The limit on comparisons while old and new keys differ. Writes in flight may have reached only one of them.
    const MAX_COMPARISONS: usize = 100;
    const COMPARISON_PAUSE: Duration = Duration::from_millis(20);
    /// How long to wait for writes that were in flight at the last step.
    const CLEANUP_PAUSE: Duration = Duration::from_secs(1);

    /// Returns a move of the data set of `store`.
    #[must_use]
    pub fn new(store: Store, window: Window, clock: Clock) -> Self {
        Self { store, window, clock }
    }

    /// Moves the data set to `to` partitions, or resumes that move. Segments keep up to `max_members` members then, or as
    /// many as before if that is `None`. Counts stay right throughout.
    ///
    /// # Errors
    ///
    /// A [`RepartitionError`]. Counts stay right after it.
    pub async fn run(&self, to: Partitions, max_members: Option<MaxMembers>) -> Result<MoveOutcome, RepartitionError> {
        if to == Partitions::ONE && self.store.is_cluster() {
            return Err(RepartitionError::OneOnACluster);
        }
        self.clock.sync(&self.store).await.map_err(RepartitionError::Refused)?;
        let eviction = self.store.eviction().await.map_err(RepartitionError::Refused)?;
        if let Some(policy) = eviction.policy.filter(EvictionPolicy::evicts) {
            return Err(RepartitionError::Evicts(policy));
        }
        let mut layout = self.store.propagate_layout().await.map_err(RepartitionError::Refused)?;
        let (mut members, mut segments) = (0, 0);
        if layout.resharding().is_none() {
            let max_members = max_members.or(layout.keys().max_members());
            if (layout.keys().partitions(), layout.keys().max_members()) == (to, max_members) {
                return Ok(MoveOutcome::NothingToDo);
            }
            let target = layout.keys().sibling(to, max_members);
            // Found later, it would block the move halfway, and the deletion of users as well.
            let foreign = self.store.find_conflicting_key(&layout, target).await;
            if let Some(key) = foreign.map_err(RepartitionError::Refused)? {
                return Err(RepartitionError::ForeignKey(key));
            }
            // A delayed write may have created keys again after an earlier move deleted them.
            self.store.delete_keys(&layout, target).await.map_err(layout_changed)?;
            layout = self.step(&layout, layout.keys(), Some((target, Phase::Backfill))).await?;
        }
        loop {
            let (old, Some(Resharding { to: new, phase })) = (layout.keys(), layout.resharding()) else {
                return Ok(MoveOutcome::Done { members, segments });
            };
            if new.partitions() != to || max_members.is_some_and(|set| new.max_members() != Some(set)) {
                return Err(RepartitionError::AnotherMove(new));
            }
            let next = self.run_phase(&layout, old, new, phase, &mut members, &mut segments).await;
            layout = match next {
                // If an instance has changed only the window, the phase begins again.
                Err(RepartitionError::LayoutChanged) => {
                    let current = self.store.propagate_layout().await?;
                    if current == layout || !current.is_laid_out_as(&layout) {
                        return Err(RepartitionError::LayoutChanged);
                    }
                    current
                }
                next => next?,
            };
        }
    }

    /// Runs `phase`. Returns the layout of the next one.
    async fn run_phase(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
        phase: Phase,
        members: &mut u64,
        segments: &mut u64,
    ) -> Result<Layout, RepartitionError> {
        match phase {
            Phase::Backfill => {
                *members = self.copy(layout, old, new).await?;
                self.settle_deletions(layout, old, new).await?;
                self.store.inherit_depths(layout, old, new).await.map_err(layout_changed)?;
                *segments = self.compare(layout, old, new).await?;
                self.step(layout, old, Some((new, Phase::Cutover))).await
            }
            Phase::Cutover => self.step(layout, old, Some((new, Phase::Cleanup))).await,
            Phase::Cleanup => {
                self.store.delete_tombstones(layout, new).await.map_err(layout_changed)?;
                // A write in flight may create deleted keys again. It is repeated in the new keys before it is
                // acknowledged, so the deletion is repeated until nothing is left.
                while self.store.delete_keys(layout, old).await.map_err(layout_changed)? > 0 {
                    tokio::time::sleep(Self::CLEANUP_PAUSE).await;
                }
                self.step(layout, new, None).await
            }
        }
    }

    /// Records the next step of the move.
    async fn step(
        &self,
        layout: &Layout,
        keys: KeySet,
        resharding: Option<(KeySet, Phase)>,
    ) -> Result<Layout, RepartitionError> {
        let resharding = resharding.map(|(to, phase)| Resharding { to, phase });
        self.store.change_layout(layout, keys, resharding).await.map_err(layout_changed)
    }

    /// Copies all members. Returns their number.
    async fn copy(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
        let (segments, foreign) = self.segments_of(old).await?;
        let sizes = stream::iter(&segments).map(|(key, segment)| self.store.members_kept(*key, segment));
        let sizes: Vec<u64> = sizes.buffer_unordered(Self::CONCURRENCY).try_collect().await?;
        let (progress, members) =
            (Progress::start(Unit::Items, Some(sizes.iter().sum()), "members"), AtomicU64::new(0));
        progress.println(format_args!(
            "copying from {} to {}",
            old.partitions().in_words(),
            new.partitions().in_words()
        ));
        if foreign > 0 {
            progress.println(format_args!("skipping keys of another type, which `check` names: {foreign}"));
        }
        let on_copied = |copied| {
            let members = members.fetch_add(copied, Ordering::Relaxed) + copied;
            progress.update(members, members);
        };
        let copying =
            stream::iter(&segments).map(|(key, segment)| self.copy_key(layout, new, *key, segment, on_copied));
        copying.buffer_unordered(Self::CONCURRENCY).try_collect::<()>().await?;
        progress.finish();
        Ok(members.into_inner())
    }

    /// Returns all keys of all segments, and the number of keys of another type, which are not moved.
    async fn segments_of(&self, keys: KeySet) -> Result<(Vec<(SegmentKey, SegmentName<'static>)>, u64), store::Error> {
        let (mut segments, mut foreign) = (Vec::new(), 0);
        for partition in keys.all() {
            let names = self.store.names_of(partition).await?;
            let each: Vec<_> =
                names.iter().flat_map(|name| partition.segment_keys().map(move |key| (key, name))).collect();
            for each in each.chunks(Self::KEYS_PER_REQUEST) {
                // Any command on a sorted set would do. Only its error matters.
                let results = self.store.count_members(partition, each, Timestamp::from_millis(0)).await?;
                for ((key, segment), result) in each.iter().zip(results) {
                    match result {
                        Err(error) if error.is_wrong_type() => foreign += 1,
                        result => result.map(|_| segments.push((*key, (*segment).clone())))?,
                    }
                }
            }
        }
        Ok((segments, foreign))
    }

    /// Copies the members of `segment` in `key`. Calls `on_copied` with the size of each page.
    async fn copy_key(
        &self,
        layout: &Layout,
        new: KeySet,
        key: SegmentKey,
        segment: &SegmentName<'static>,
        on_copied: impl Fn(u64),
    ) -> Result<(), RepartitionError> {
        let mut cursor = None;
        loop {
            let page = self.store.members(key, segment, cursor.as_ref()).await?;
            let mut batch = Batch::default();
            for (user_id, seen_at) in page.members {
                batch.add(&Visit { user_id, segment: segment.clone(), seen_at });
            }
            self.store.copy(layout, new, &batch).await.map_err(layout_changed)?;
            on_copied(batch.len() as u64);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares the counts of every segment in old and new keys. Returns the number of segments.
    async fn compare(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
        let (partitioned, _) = self.segments_of(old).await?;
        let mut segments: Vec<_> = partitioned.into_iter().map(|(_, segment)| segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let progress = Progress::start(Unit::Items, Some(segments.len() as u64), "segments");
        progress.println("comparing counts");
        for (compared, segment) in (1..).zip(&segments) {
            match self.compare_segment(layout, old, new, segment).await {
                Err(RepartitionError::CountsDiffer { .. }) => {
                    // A failover may have lost copied members.
                    for key in old.segment_keys() {
                        self.copy_key(layout, new, key, segment, |_| {}).await?;
                    }
                    self.settle_deletions(layout, old, new).await?;
                    self.store.inherit_depths(layout, old, new).await.map_err(layout_changed)?;
                    self.compare_segment(layout, old, new, segment).await?;
                }
                compared => compared?,
            }
            progress.update(compared, compared);
        }
        progress.finish();
        Ok(segments.len() as u64)
    }

    async fn compare_segment(
        &self,
        layout: &Layout,
        old_keys: KeySet,
        new_keys: KeySet,
        segment: &SegmentName<'static>,
    ) -> Result<(), RepartitionError> {
        let mut comparisons = 0;
        loop {
            let cutoff = layout.window().map_or(self.window, |kept| kept.max(self.window)).cutoff(self.clock.now());
            // Both keep the levels from this one on.
            let depth = self.store.complete_depth(old_keys, segment).await?;
            let depth = self.store.complete_depth(new_keys, segment).await?.max(depth);
            let before = self.store.count_in(old_keys, segment, cutoff, depth).await?;
            let new = self.store.count_in(new_keys, segment, cutoff, depth).await?;
            let old = self.store.count_in(old_keys, segment, cutoff, depth).await?;
            comparisons += 1;
            // Visits continue during the comparison. At some moment between the two counts of the old keys, there were
            // as many.
            if (before.min(old)..=before.max(old)).contains(&new) {
                return Ok(());
            }
            // Keys without levels have all users, and the new ones a sample of them.
            if old_keys.max_members().is_none() && is_sample_of(Estimate::sampled(new, depth), before.midpoint(old)) {
                return Ok(());
            }
            if comparisons == Self::MAX_COMPARISONS {
                if self.store.propagate_layout().await? != *layout {
                    return Err(RepartitionError::LayoutChanged);
                }
                return Err(RepartitionError::CountsDiffer { segment: segment.clone(), old, new });
            }
            tokio::time::sleep(Self::COMPARISON_PAUSE).await;
        }
    }
}

/// Whether `estimate` is that of a sample of `users`: less than six standard errors from them, beyond which chance is no
/// explanation.
fn is_sample_of(estimate: Estimate, users: u64) -> bool {
    let difference = estimate.count().abs_diff(users) as f64;
    !estimate.is_exact() && difference <= 6.0 * estimate.variance().sqrt().max(1.0)
}

/// Returns the arguments of a move to `keys`.
fn arguments(keys: KeySet) -> String {
    let max_members = keys.max_members().map_or_else(String::new, |max| format!(" --max-members {max}"));
    format!("--to {}{max_members}", keys.partitions())
}

/// Returns what to do before the next run.
fn remedy(error: &store::Error) -> &'static str {
    match error {
        store::Error::Redis(redis::Error::WrongType { .. }) => "rename or delete that key, and ",
        _ => "",
    }
}

/// Converts the error of a layout that another process has changed.
fn layout_changed(error: store::Error) -> RepartitionError {
    match error {
        store::Error::LayoutChanged => RepartitionError::LayoutChanged,
        error => error.into(),
    }
}
