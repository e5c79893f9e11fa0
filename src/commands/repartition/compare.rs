//! Comparing the counts of old and new keys.

use super::error::layout_changed;
use super::{Repartition, RepartitionError};
use crate::commands::progress::{Progress, Unit};
use crate::domain::{Estimate, SegmentName};
use crate::store::{KeySet, Layout};

impl Repartition {
    /// Compares the counts of every segment in old and new keys. Returns the number of segments.
    pub(super) async fn compare(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
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
