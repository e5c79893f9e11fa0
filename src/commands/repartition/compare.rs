//! Comparing the counts of old and new keys.

use super::{Repartition, RepartitionError};
use crate::commands::progress::{Progress, Unit};
use crate::domain::{Depth, Estimate, SegmentName};
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
                    self.settle(layout, old, new).await?;
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
            if old_keys.max_members().is_none() && is_sample_of(new, depth, before.midpoint(old)) {
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

/// Whether `kept` members at `depth` may be a sample of `users`: their estimate is less than six standard errors from
/// them, beyond which chance is no explanation.
fn is_sample_of(kept: u64, depth: Depth, users: u64) -> bool {
    let difference = Estimate::sampled(kept, depth).count().abs_diff(users) as f64;
    // The variance is that of the known users. That of a sample without members would be 0.
    let variance = users as f64 * (depth.weight() - 1) as f64;
    difference <= 6.0 * variance.sqrt()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::expected(1_000, 4, 16_000, true)]
    #[case::by_chance(900, 4, 16_000, true)]
    #[case::lost(600, 4, 16_000, false)]
    #[case::few_users_and_none_kept(0, 10, 500, true)]
    #[case::all_kept(500, 0, 500, true)]
    #[case::one_lost_of_all(499, 0, 500, false)]
    fn is_sample_of_allows_for_chance(
        #[case] kept: u64,
        #[case] depth: u8,
        #[case] users: u64,
        #[case] expected: bool,
    ) {
        assert_eq!(is_sample_of(kept, Depth::from_number(depth).unwrap(), users), expected);
    }
}
