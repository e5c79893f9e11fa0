//! Removes expired members.

use futures_util::future::join_all;

use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp};
use crate::store::{self, Layout, MemberCounts, Partition, Store};

/// The result of a run. A segment counts once for each partition.
#[derive(Debug, Default, Clone, Copy)]
pub struct PruneReport {
    /// Segments examined.
    pub segments_examined: u64,
    /// Expired members removed.
    pub members_removed: u64,
    /// Empty segments removed from the index.
    pub segments_dropped: u64,
    /// Segments whose key is not a sorted set. Their names were removed from the index, too.
    pub segments_failed: u64,
}

impl PruneReport {
    fn add(&mut self, Self { segments_examined, members_removed, segments_dropped, segments_failed }: Self) {
        self.segments_examined += segments_examined;
        self.members_removed += members_removed;
        self.segments_dropped += segments_dropped;
        self.segments_failed += segments_failed;
    }
}

impl Estimator {
    /// Segments examined in one round trip, for which Redis takes a millisecond.
    const INDEX_PAGE: usize = 250;
    /// How often a run restarts because the layout has changed.
    const MAX_PRUNE_ATTEMPTS: usize = 5;

    /// Removes all members that have expired at `now`, in slices, and removes empty segments from the index. The window is that of
    /// the data set, which is at least as long as any instance's.
    ///
    /// Frees memory; counts don't depend on it. Any number of estimators may prune concurrently. If a key is not a sorted set, its name
    /// is removed from the index and the key is kept.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed, or refused a command for some segments; the others were pruned.
    pub async fn prune(&self, now: Timestamp) -> Result<PruneReport, store::Error> {
        let mut before = PruneReport::default();
        for _ in 0..Self::MAX_PRUNE_ATTEMPTS {
            let layout = self.store.layout().await?;
            let cutoff = self.retention_by(&layout).cutoff(now);
            // One slice is in flight at each server.
            let servers = self.store.partitions_by_server().await?.into_iter();
            let runs = join_all(servers.map(|partitions| self.prune_partitions(&layout, partitions, cutoff))).await;
            let (mut report, mut failure) = (before, None);
            for (pruned, outcome) in runs {
                report.add(pruned);
                failure = failure.or(outcome.err());
            }
            match failure {
                None => return Ok(report),
                // The window was extended, or the data is being moved to other keys.
                Some(store::Error::UnknownLayout) => {
                    let PruneReport { members_removed, segments_dropped, .. } = report;
                    before = PruneReport { members_removed, segments_dropped, ..PruneReport::default() };
                }
                Some(error) => return Err(error),
            }
            self.store.refresh_layout().await?;
        }
        Err(store::Error::UnknownLayout)
    }

    /// Prunes `partitions`. Returns what was removed, even after a failure.
    async fn prune_partitions(
        &self,
        layout: &Layout,
        partitions: Vec<Partition>,
        cutoff: Timestamp,
    ) -> (PruneReport, Result<(), store::Error>) {
        let (mut report, mut refusal) = (PruneReport::default(), None);
        for partition in partitions {
            match self.prune_partition(layout, partition, cutoff, &mut report).await {
                Ok(()) => {}
                Err(error) if error.is_refused_command() => refusal = refusal.or(Some(error)),
                Err(error) => return (report, Err(error)),
            }
        }
        (report, refusal.map_or(Ok(()), Err))
    }

    async fn prune_partition(
        &self,
        layout: &Layout,
        partition: Partition,
        cutoff: Timestamp,
        report: &mut PruneReport,
    ) -> Result<(), store::Error> {
        let (mut cursor, mut refusal) = (None, None);
        loop {
            let page = self.store.index_of(partition, cursor.as_ref(), Self::INDEX_PAGE).await?;
            match self.prune_segments(layout, partition, &page.segments, cutoff).await {
                Ok(pruned) => report.add(pruned),
                // A refusal concerns this page alone.
                Err(error) if error.is_refused_command() => refusal = refusal.or(Some(error)),
                Err(error) => return Err(error),
            }
            cursor = page.next;
            if cursor.is_none() {
                return refusal.map_or(Ok(()), Err);
            }
        }
    }

    /// Prunes `segments`. Those with few expired members share a slice.
    async fn prune_segments(
        &self,
        layout: &Layout,
        partition: Partition,
        segments: &[SegmentName<'_>],
        cutoff: Timestamp,
    ) -> Result<PruneReport, store::Error> {
        const SLICE: u64 = Store::SLICE as u64;
        let mut report = PruneReport { segments_examined: segments.len() as u64, ..PruneReport::default() };
        if segments.is_empty() {
            return Ok(report);
        }
        let (mut few, mut sum, mut emptied) = (Vec::new(), 0, Vec::new());
        for (segment, found) in segments.iter().zip(self.store.count_members(partition, segments, cutoff).await?) {
            let MemberCounts { expired, members } = match found {
                Err(error) if error.is_wrong_type() => {
                    report.segments_failed += 1;
                    emptied.push(segment.as_str());
                    continue;
                }
                found => found?,
            };
            if expired == members {
                emptied.push(segment.as_str());
            }
            if expired > SLICE {
                report.members_removed += self.prune_large(layout, partition, segment, cutoff).await?;
                continue;
            }
            if sum + expired > SLICE {
                report.members_removed += self.store.remove_expired(layout, partition, &few, cutoff).await?;
                (few, sum) = (Vec::new(), 0);
            }
            if expired > 0 {
                few.push(segment);
                sum += expired;
            }
        }
        if !few.is_empty() {
            report.members_removed += self.store.remove_expired(layout, partition, &few, cutoff).await?;
        }
        if !emptied.is_empty() {
            report.segments_dropped += self.store.drop_unless_occupied(partition, &emptied).await?;
        }
        Ok(report)
    }

    /// Prunes a segment that has more expired members than a slice.
    async fn prune_large(
        &self,
        layout: &Layout,
        partition: Partition,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<u64, store::Error> {
        let mut removed = 0;
        loop {
            let slice = self.store.prune_slice(layout, partition, segment, cutoff).await?;
            removed += slice.removed;
            if slice.is_last {
                return Ok(removed);
            }
        }
    }
}
