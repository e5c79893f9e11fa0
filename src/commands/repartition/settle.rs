//! Settles the users and segments that were deleted during the copy.

use std::collections::BTreeSet;

use super::error::layout_changed;
use super::{Repartition, RepartitionError};
use crate::domain::SegmentName;
use crate::store::{KeySet, Layout, Store, Tombstone, UserInSegment};

impl Repartition {
    /// Makes the new keys agree with the old ones: for all that was deleted during the copy, and in the levels that
    /// segments keep.
    pub(super) async fn settle(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<(), RepartitionError> {
        loop {
            self.settle_deletions(layout, old, new).await?;
            let deleted = self.store.inherit_depths(layout, old, new).await.map_err(layout_changed)?;
            if deleted.is_empty() {
                return Ok(());
            }
            // Until then, instances may leave out visits in the new keys because of the inherited depth.
            tokio::time::sleep(Store::DEPTHS_MAX_AGE).await;
            for segment in &deleted {
                for key in old.segment_keys() {
                    self.copy_key(layout, new, key, segment, |_| {}).await?;
                }
            }
        }
    }

    /// Makes the new keys agree with the old ones for every user and segment with a tombstone: those that were deleted
    /// during the copy.
    async fn settle_deletions(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<(), RepartitionError> {
        const PAGE: usize = 1_000;
        // The tombstone of a segment is in every partition.
        let mut segments = BTreeSet::new();
        for partition in new.all() {
            let mut after: Option<String> = None;
            loop {
                let page = self.store.tombstones_of(partition, after.as_deref(), PAGE).await?;
                for tombstone in page.tombstones {
                    match tombstone {
                        Tombstone::User(user) => {
                            let pairs = self.store.pairs_of_user(old, new, &user).await?;
                            self.settle_pairs(layout, old, new, pairs).await?;
                        }
                        Tombstone::Segment(segment) => drop(segments.insert(segment)),
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        for segment in &segments {
            self.settle_segment(layout, old, new, segment).await?;
        }
        Ok(())
    }

    /// Makes the new keys agree with the old ones for the users of `segment`.
    async fn settle_segment(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
        segment: &SegmentName<'static>,
    ) -> Result<(), RepartitionError> {
        // A copy may have brought a user back to the new keys. A visit may have reached the old ones alone, if it arrived
        // between the deletions from both.
        for key in new.segment_keys().chain(old.segment_keys()) {
            let mut cursor = None;
            loop {
                let (pairs, next) = match self.store.pairs_of_segment(key, segment, cursor.as_ref()).await {
                    // A key of another program has no members, and was not copied.
                    Err(error) if error.is_wrong_type() => break,
                    page => page?,
                };
                self.settle_pairs(layout, old, new, pairs).await?;
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes the new keys agree with the old ones for `pairs`. Settling copies visits, which may be deleted at the same
    /// time. Therefore pairs that it changed are settled again, until nothing changes.
    async fn settle_pairs(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
        mut pairs: Vec<UserInSegment>,
    ) -> Result<(), RepartitionError> {
        for _ in 0..Self::MAX_COMPARISONS {
            pairs = self.store.reconcile(layout, old, new, pairs).await.map_err(layout_changed)?;
            if pairs.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Self::COMPARISON_PAUSE).await;
        }
        Err(RepartitionError::UnsettledDeletions)
    }
}
