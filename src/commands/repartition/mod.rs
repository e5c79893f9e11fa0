//! `segment-estimator repartition`: moves the data set to another number of partitions while it is written and counted.
//!
//! Four steps, each recorded in Redis, so that a run that was cut short is taken up where it was: from now on visits go to both
//! sets of keys ([`Phase::Backfill`]), and what is there already is copied under `GT`, which makes it not matter who is first; users
//! who were removed meanwhile are made to be in the copies as in the old keys; the counts are compared, segment by segment; counts are
//! of the new keys ([`Phase::Cutover`]); nobody looks at the old ones any more ([`Phase::Cleanup`]), and they are deleted.

mod command;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

pub(super) use self::command::RepartitionCommand;
use super::progress::{Progress, Unit};
use crate::domain::{SegmentName, Timestamp, Visit, Window};
use crate::estimator::clock::Clock;
use crate::redis;
use crate::store::diagnostics::EvictionPolicy;
use crate::store::{self, Batch, KeySet, Layout, Partition, Partitions, Phase, Resharding, Store};

/// Moves the data set of a store.
#[derive(Debug)]
pub struct Repartition {
    store: Store,
    window: Window,
    clock: Clock,
}

/// What a move did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The data set has as many partitions as it should.
    NothingToDo,
    /// It was moved.
    Done {
        /// Members that were copied, by this run.
        members: u64,
        /// Segments whose counts were compared.
        segments: u64,
    },
}

/// Why a move was not finished. It can be taken up again by the same command.
#[derive(Debug, thiserror::Error)]
pub enum RepartitionError {
    /// Redis can't serve, or has another data set than is expected. Nothing was done.
    #[error("Redis can't serve: {0}")]
    Refused(store::Error),
    /// Redis failed.
    #[error("{0}; what was moved so far is kept: {first}run the same command again", first = what_first(.0))]
    Store(#[from] store::Error),
    /// Redis may evict the notes of deleted users, or members that were copied. Nothing was done.
    #[error("Redis {0}, and then run the same command again: a move needs every key to stay")]
    Evicts(EvictionPolicy),
    /// A key that the move would overwrite or delete holds what no move has written. Nothing was done.
    #[error(
        "`{0}` holds what no move of this data set has written, and this move would write there: rename that key or delete it, and run \
         the same command again; nothing was moved"
    )]
    InTheWay(String),
    /// A cluster can't keep the keys of one partition together.
    #[error("--to: a cluster needs 2 partitions or more: those of one would be at all servers")]
    OneOnACluster,
    /// Another move is under way.
    #[error("a move to {to} is under way: finish that first, with `segment-estimator repartition --to {0}`", to = .0.in_words())]
    AnotherMove(Partitions),
    /// Somebody else changes the layout, too.
    #[error("somebody else moves the data, too; wait for that, and run the same command again if it doesn't end well")]
    Interfered,
    /// Users who were deleted meanwhile don't come to rest.
    #[error(
        "users who were deleted are visited so often that old and new keys never have them alike; run the same command again"
    )]
    Unsettled,
    /// Old and new keys don't have the same users.
    #[error(
        "{segment} has {old} users by the old keys and {new} by the new ones, and that doesn't change; nothing was switched, \
         and nothing is lost"
    )]
    Differs {
        /// The first such segment.
        segment: SegmentName<'static>,
        /// By the old keys.
        old: u64,
        /// By the new keys.
        new: u64,
    },
}

impl Repartition {
    /// Segments of one partition that are copied at once.
    const CONCURRENCY: usize = 8;
    /// Segments that are looked at in one round trip.
    const SEGMENTS_PER_REQUEST: usize = 500;
    /// How often counts are compared while they differ. Visits that are on their way may be in one set of keys already.
    const COMPARISONS: usize = 100;
    /// How long to wait in between.
    const PAUSE: Duration = Duration::from_millis(20);
    /// How long to wait for what was on its way when the last step was taken.
    const SETTLING: Duration = Duration::from_secs(1);

    /// A move of the data set of `store`, whose members count for `window`.
    #[must_use]
    pub fn new(store: Store, window: Window, clock: Clock) -> Self {
        Self { store, window, clock }
    }

    /// Moves the data set to `to` partitions, or takes up a move there.
    ///
    /// # Errors
    ///
    /// A [`RepartitionError`]. Counts are right all the same, before, meanwhile and after.
    pub async fn run(&self, to: Partitions) -> Result<Moved, RepartitionError> {
        if to == Partitions::ONE && self.store.is_cluster() {
            return Err(RepartitionError::OneOnACluster);
        }
        self.clock.sync(&self.store).await.map_err(RepartitionError::Refused)?;
        let eviction = self.store.eviction().await.map_err(RepartitionError::Refused)?;
        if let Some(policy) = eviction.policy.filter(EvictionPolicy::evicts) {
            return Err(RepartitionError::Evicts(policy));
        }
        let mut layout = self.store.settled_layout().await.map_err(RepartitionError::Refused)?;
        let (mut members, mut segments) = (0, 0);
        if layout.resharding().is_none() {
            if layout.keys().partitions() == to {
                return Ok(Moved::NothingToDo);
            }
            let target = layout.keys().sibling(to);
            // Later it would stop the move halfway, and every deletion of a user with it.
            let foreign = self.store.find_conflicting_key(&layout, target).await;
            if let Some(key) = foreign.map_err(RepartitionError::Refused)? {
                return Err(RepartitionError::InTheWay(key));
            }
            // Of a move long ago, somebody may have written to these keys after they were deleted.
            self.store.delete_keys(&layout, target).await.map_err(interfered)?;
            layout = self.step(&layout, layout.keys(), Some((target, Phase::Backfill))).await?;
        }
        loop {
            let (old, Some(Resharding { to: new, phase })) = (layout.keys(), layout.resharding()) else {
                return Ok(Moved::Done { members, segments });
            };
            if new.partitions() != to {
                return Err(RepartitionError::AnotherMove(new.partitions()));
            }
            let phase = self.run_phase(&layout, old, new, phase, &mut members, &mut segments).await;
            layout = match phase {
                // An instance has changed the window alone. The phase begins again.
                Err(RepartitionError::Interfered) => {
                    let now = self.store.settled_layout().await?;
                    if now == layout || !now.is_laid_out_as(&layout) {
                        return Err(RepartitionError::Interfered);
                    }
                    now
                }
                phase => phase?,
            };
        }
    }

    /// Does the work of `phase`, and gives the layout of the next one.
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
                *segments = self.compare(layout, old, new).await?;
                self.step(layout, old, Some((new, Phase::Cutover))).await
            }
            Phase::Cutover => self.step(layout, old, Some((new, Phase::Cleanup))).await,
            Phase::Cleanup => {
                self.store.delete_tombstones(layout, new).await.map_err(interfered)?;
                // A write that was on its way arrives at keys that are gone, and is done again elsewhere before it is
                // acknowledged. What it leaves would be nobody's.
                while self.store.delete_keys(layout, old).await.map_err(interfered)? > 0 {
                    tokio::time::sleep(Self::SETTLING).await;
                }
                self.step(layout, new, None).await
            }
        }
    }

    async fn step(
        &self,
        layout: &Layout,
        keys: KeySet,
        resharding: Option<(KeySet, Phase)>,
    ) -> Result<Layout, RepartitionError> {
        let resharding = resharding.map(|(to, phase)| Resharding { to, phase });
        self.store.change_layout(layout, keys, resharding).await.map_err(interfered)
    }

    /// Copies all members, and says how many.
    async fn copy(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
        let (places, foreign) = self.places(old).await?;
        let sizes = stream::iter(&places).map(|(partition, segment)| self.store.members_kept(*partition, segment));
        let sizes: Vec<u64> = sizes.buffer_unordered(Self::CONCURRENCY).try_collect().await?;
        let (progress, members) =
            (Progress::start(Unit::Items, Some(sizes.iter().sum()), "members"), AtomicU64::new(0));
        progress.println(format_args!(
            "copying from {} to {}",
            old.partitions().in_words(),
            new.partitions().in_words()
        ));
        if foreign > 0 {
            progress.println(format_args!("passing over keys of another type, which `check` names: {foreign}"));
        }
        let tell = |copied| {
            let members = members.fetch_add(copied, Ordering::Relaxed) + copied;
            progress.update(members, members);
        };
        let copying =
            stream::iter(&places).map(|(partition, segment)| self.copy_segment(layout, new, *partition, segment, tell));
        copying.buffer_unordered(Self::CONCURRENCY).try_collect::<()>().await?;
        progress.finish();
        Ok(members.into_inner())
    }

    /// All segments of all partitions, and how many more have keys of another type, which have no members and stay where they are.
    async fn places(&self, keys: KeySet) -> Result<(Vec<(Partition, SegmentName<'static>)>, u64), store::Error> {
        let (mut places, mut foreign) = (Vec::new(), 0);
        for partition in keys.all() {
            let names = self.store.names_of(partition).await?;
            for names in names.chunks(Self::SEGMENTS_PER_REQUEST) {
                let looks = self.store.count_members(partition, names, Timestamp::from_millis(0)).await?;
                for (segment, look) in names.iter().zip(looks) {
                    match look {
                        Err(error) if error.is_wrong_type() => foreign += 1,
                        look => look.map(|_| places.push((partition, segment.clone())))?,
                    }
                }
            }
        }
        Ok((places, foreign))
    }

    /// Copies the members of `segment` in `partition`, and tells how many with each page.
    async fn copy_segment(
        &self,
        layout: &Layout,
        new: KeySet,
        partition: Partition,
        segment: &SegmentName<'static>,
        tell: impl Fn(u64),
    ) -> Result<(), RepartitionError> {
        let mut cursor = None;
        loop {
            let page = self.store.members(partition, segment, cursor.as_ref()).await?;
            let mut batch = Batch::default();
            for (user_id, seen_at) in page.members {
                batch.add(&Visit { user_id, segment: segment.clone(), seen_at });
            }
            self.store.copy(layout, new, &batch).await.map_err(interfered)?;
            tell(batch.len() as u64);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Sees that whoever was deleted while his members were on their way is as he should be. What this does is a copy, too, which
    /// somebody may be deleted during; so it is done until there is nothing to do.
    async fn settle_deletions(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<(), RepartitionError> {
        let mut looks = 0;
        while self.settle_tombstones(layout, old, new).await? {
            looks += 1;
            if looks == Self::COMPARISONS {
                return Err(RepartitionError::Unsettled);
            }
            tokio::time::sleep(Self::PAUSE).await;
        }
        Ok(())
    }

    /// Settles every user whose deletion is noted, and says whether there was anything to do.
    async fn settle_tombstones(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<bool, RepartitionError> {
        const PAGE: usize = 1_000;
        let mut is_changed = false;
        for partition in new.all() {
            let mut users = self.store.tombstones_of(partition, None, PAGE).await?;
            while let Some(last) = users.last().cloned() {
                for user in &users {
                    is_changed |= self.store.reconcile_user(layout, old, new, user).await.map_err(interfered)?;
                }
                users = self.store.tombstones_of(partition, Some(&last), PAGE).await?;
            }
        }
        Ok(is_changed)
    }

    /// Compares the counts of every segment by old and new keys, and says how many segments there are.
    async fn compare(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
        let (places, _) = self.places(old).await?;
        let mut segments: Vec<_> = places.into_iter().map(|(_, segment)| segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let progress = Progress::start(Unit::Items, Some(segments.len() as u64), "segments");
        progress.println("comparing counts");
        for (compared, segment) in (1..).zip(&segments) {
            match self.compare_segment(layout, old, new, segment).await {
                Err(RepartitionError::Differs { .. }) => {
                    // As when a server has lost what it had acknowledged.
                    for partition in old.all() {
                        self.copy_segment(layout, new, partition, segment, |_| {}).await?;
                    }
                    self.settle_deletions(layout, old, new).await?;
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
            let before = self.store.count_in(old_keys, segment, cutoff).await?;
            let new = self.store.count_in(new_keys, segment, cutoff).await?;
            let old = self.store.count_in(old_keys, segment, cutoff).await?;
            comparisons += 1;
            // Users come all the while. At some moment in between there were as many.
            if (before.min(old)..=before.max(old)).contains(&new) {
                return Ok(());
            }
            if comparisons == Self::COMPARISONS {
                if self.store.settled_layout().await? != *layout {
                    return Err(RepartitionError::Interfered);
                }
                return Err(RepartitionError::Differs { segment: segment.clone(), old, new });
            }
            tokio::time::sleep(Self::PAUSE).await;
        }
    }
}

/// What to do before the command can succeed.
fn what_first(error: &store::Error) -> &'static str {
    match error {
        store::Error::Redis(redis::Error::WrongType { .. }) => "rename that key or delete it, and ",
        _ => "",
    }
}

/// A layout that has changed under our hands was changed by somebody.
fn interfered(error: store::Error) -> RepartitionError {
    match error {
        store::Error::UnknownLayout => RepartitionError::Interfered,
        error => error.into(),
    }
}
