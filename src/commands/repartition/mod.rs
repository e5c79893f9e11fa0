//! `segment-estimator repartition`: moves the data set to another number of partitions, or to another maximum number of
//! members of a segment, while services write and count.
//!
//! Each phase is recorded in Redis, so another run can resume the move:
//!
//! 1. [`Phase::Backfill`]: services write to both sets of keys. The move copies the members with `GT`, so the order of a
//!    copy and a visit makes no difference. Then it settles users and segments that were deleted in the meantime, raises
//!    the depths of the new keys to those of the old ones, and compares the counts of each segment.
//! 2. [`Phase::Cutover`]: services count in the new keys.
//! 3. [`Phase::Cleanup`]: services no longer use the old keys, and the move deletes them.

mod command;
mod compare;
mod copy;
mod destination;
mod error;
mod settle;

use std::time::Duration;

pub(super) use self::command::RepartitionCommand;
pub(super) use self::destination::arguments;
pub use self::destination::{Destination, MembersKept};
pub use self::error::RepartitionError;
use self::error::layout_changed;
use crate::domain::Window;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::EvictionPolicy;
use crate::store::{KeySet, Layout, MaxMembers, Partitions, Phase, Resharding, Store};

/// A move of the data set to other keys.
#[derive(Debug)]
pub struct Repartition {
    store: Store,
    window: Window,
    clock: Clock,
}

/// The outcome of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The data set has these keys already.
    NothingToDo(KeySet),
    /// The data set was moved.
    Done {
        /// The keys of the data set now.
        keys: KeySet,
        /// The members that this run copied.
        members: u64,
        /// The segments whose counts this run compared.
        segments: u64,
    },
}

impl Repartition {
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

    /// Returns the maximum of members of `destination` if the data set keeps more now, so that users will be dropped. A
    /// move that is resumed has been confirmed.
    ///
    /// # Errors
    ///
    /// A [`RepartitionError`] if Redis failed.
    pub async fn lower_maximum(&self, destination: Destination) -> Result<Option<MaxMembers>, RepartitionError> {
        let layout = self.store.existing_layout().await.map_err(RepartitionError::Refused)?;
        let layout = layout.filter(|layout| layout.resharding().is_none());
        Ok(layout.and_then(|layout| destination.lower_maximum(layout.keys())))
    }

    /// Moves the data set to `destination`, or resumes that move. Counts stay right throughout.
    ///
    /// # Errors
    ///
    /// A [`RepartitionError`]. Counts stay right after it.
    pub async fn run(&self, destination: Destination) -> Result<MoveOutcome, RepartitionError> {
        if destination.partitions == Some(Partitions::ONE) && self.store.is_cluster() {
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
            if destination.is_met_by(layout.keys()) {
                return Ok(MoveOutcome::NothingToDo(layout.keys()));
            }
            layout = self.begin(&layout, destination).await?;
        }
        loop {
            let (old, Some(Resharding { to: new, phase })) = (layout.keys(), layout.resharding()) else {
                return Ok(MoveOutcome::Done { keys: layout.keys(), members, segments });
            };
            if !destination.is_met_by(new) {
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

    /// Begins a move to `destination`. Returns the layout of its first phase.
    async fn begin(&self, layout: &Layout, destination: Destination) -> Result<Layout, RepartitionError> {
        let target = destination.from(layout.keys()).ok_or(RepartitionError::NotKept)?;
        // Found later, it would block the move halfway, and the deletion of users as well.
        let foreign = self.store.find_conflicting_key(layout, target).await;
        if let Some(key) = foreign.map_err(RepartitionError::Refused)? {
            return Err(RepartitionError::ForeignKey(key));
        }
        // A delayed write may have created keys again after an earlier move deleted them.
        self.store.delete_keys(layout, target).await.map_err(layout_changed)?;
        self.step(layout, layout.keys(), Some((target, Phase::Backfill))).await
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
                self.settle(layout, old, new).await?;
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
}
