//! Reconciling the old and the new key set of a resharding, for users and segments that were deleted in the meantime.
//! [`tombstones`](super::tombstones) explains why.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::{Batch, Error, KeySet, Layout, MembersCursor, Partition, Presence, SegmentKey, Store};
use crate::domain::{SegmentName, Timestamp, UserId, Visit};

/// A user and a segment.
pub type UserInSegment = (UserId<'static>, SegmentName<'static>);

impl Store {
    /// Returns `user` with every segment that may contain the user in the key sets `old` or `new`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn pairs_of_user(
        &self,
        old: KeySet,
        new: KeySet,
        user: &UserId<'static>,
    ) -> Result<Vec<UserInSegment>, Error> {
        let mut segments = BTreeSet::new();
        for keys in [old, new] {
            segments.extend(self.names_of(keys.of(hash(user.as_str()))).await?);
        }
        Ok(segments.into_iter().map(|segment| (user.clone(), segment)).collect())
    }

    /// Returns a page of the users of `segment` in `key`, as [`Self::members`] does.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn pairs_of_segment(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'static>,
        cursor: Option<&MembersCursor>,
    ) -> Result<(Vec<UserInSegment>, Option<MembersCursor>), Error> {
        let page = self.members(key, segment, cursor).await?;
        Ok((page.members.into_iter().map(|(user, _)| (user, segment.clone())).collect(), page.next))
    }

    /// Makes the key set `new` agree with `old` on whether and when each user of `pairs` was in the segment, while
    /// visits are written to both and counts read `old`.
    ///
    /// Returns the pairs that it changed. The caller must repeat the call for them: a change may have removed a visit
    /// that was written in the meantime, or copied one that was deleted in the meantime. It need not repeat the call for
    /// the others, of which no copy was in flight.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if `layout` is no longer in force.
    pub async fn reconcile(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
        pairs: Vec<UserInSegment>,
    ) -> Result<Vec<UserInSegment>, Error> {
        let known = KnownLayout::new(*layout);
        let mut changed = Vec::new();
        for pairs in pairs.chunks(Self::SEGMENTS_PER_REQUEST) {
            // The old key set is read first. If it lacks a member, no visit acknowledged before wrote it, so the new
            // key set may lose it. A visit acknowledged since then is in the old key set, and the next call copies it.
            let expected = self.presences(old, pairs, &known).await?;
            let actual = self.presences(new, pairs, &known).await?;
            let (mut missing, mut removals) = (Batch::default(), Vec::new());
            for ((pair, expected), actual) in pairs.iter().zip(expected).zip(actual) {
                // What the new key set doesn't keep can't be copied. What the old one doesn't keep, the new one won't
                // keep either: it inherits the depths afterwards.
                let (Some(expected), Some(actual)) = (last_visit(expected), last_visit(actual)) else { continue };
                if expected == actual {
                    continue;
                }
                changed.push(pair.clone());
                let (user, segment) = pair;
                if let Some(actual) = actual.filter(|actual| expected.is_none_or(|expected| expected < *actual)) {
                    let target = new.of(hash(user.as_str()));
                    removals.push((target, pair, actual));
                }
                if let Some(seen_at) = expected {
                    missing.add(&Visit { user_id: user.clone(), segment: segment.clone(), seen_at });
                }
            }
            // What is left out is among `changed`, and removed by the next call.
            self.remove_unchanged(removals, &known).await?;
            if !missing.is_empty() {
                self.copy(layout, new, &missing).await?;
            }
        }
        Ok(changed)
    }

    /// Returns for each of `pairs` what is known of it in the key set `keys`.
    async fn presences(
        &self,
        keys: KeySet,
        pairs: &[UserInSegment],
        known: &KnownLayout,
    ) -> Result<Vec<Presence>, Error> {
        let mut by_partition: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (index, (user, _)) in pairs.iter().enumerate() {
            by_partition.entry(keys.of(hash(user.as_str()))).or_default().push(index);
        }
        let reads = by_partition.into_iter().map(|(partition, indices)| async move {
            let of_partition: Vec<_> = indices.iter().map(|index| &pairs[*index]).collect();
            match self.presences_in(partition, &of_partition, known).await? {
                Attempt::Committed(presences) => Ok(indices.into_iter().zip(presences)),
                Attempt::Stale => Err(Error::LayoutChanged),
            }
        });
        let mut presences = vec![Presence::Absent; pairs.len()];
        for (index, presence) in try_join_all(reads).await?.into_iter().flatten() {
            presences[index] = presence;
        }
        Ok(presences)
    }
}

/// Returns the time of the last visit, if there is one; `None` if a sample leaves out the user.
fn last_visit(presence: Presence) -> Option<Option<Timestamp>> {
    match presence {
        Presence::SeenAt(time) => Some(Some(time)),
        Presence::Absent => Some(None),
        Presence::NotKnown(_) => None,
    }
}
