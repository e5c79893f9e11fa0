//! Removes expired members.

use futures_util::future::join_all;

use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp, Window};
use crate::store::{self, Layout, MemberCounts, Partition, SegmentKey, Store};

/// The result of a run. A segment counts once for each partition.
#[derive(Debug, Default, Clone, Copy)]
pub struct PruneReport {
    /// The window of the data set, which decided what had expired; `None` if the run failed before it was read. If it
    /// was extended during the run, the first and shortest one: no member within it was removed.
    pub window: Option<Window>,
    /// Segments examined.
    pub segments_examined: u64,
    /// Expired members removed.
    pub members_removed: u64,
    /// Names of empty segments removed from the index.
    pub names_dropped: u64,
    /// Segments whose key is not a sorted set. Their names were removed from the index as well, and are not in
    /// [`Self::names_dropped`].
    pub segments_of_wrong_type: u64,
}

impl PruneReport {
    /// Adds the counts of one server.
    fn add(&mut self, server: &Self) {
        let Self { window: _, segments_examined, members_removed, names_dropped, segments_of_wrong_type } = server;
        self.segments_examined += segments_examined;
        self.members_removed += members_removed;
        self.names_dropped += names_dropped;
        self.segments_of_wrong_type += segments_of_wrong_type;
    }
}

/// A run that failed, perhaps after it had removed members.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{cause}")]
pub struct PruneError {
    /// What was done before the failure, or in spite of it.
    pub report: PruneReport,
    /// Why the run failed.
    pub cause: store::Error,
}

impl Estimator {
    /// How often a run restarts because the layout has changed.
    const MAX_PRUNE_ATTEMPTS: usize = 5;

    /// Removes all members that have expired at `now`, in slices, and removes empty segments from the index. The window
    /// is that of the data set, which is at least as long as any instance's.
    ///
    /// Frees memory; counts don't depend on it. Any number of estimators may prune concurrently. If a key is not a
    /// sorted set, its name is removed from the index and the key is kept.
    ///
    /// # Errors
    ///
    /// A [`PruneError`] if Redis failed, or refused a command for a segment. After a refusal, the other pages of the
    /// index are pruned.
    pub async fn prune(&self, now: Timestamp) -> Result<PruneReport, PruneError> {
        let mut report = PruneReport::default();
        match self.prune_into(&mut report, now).await {
            Ok(()) => Ok(report),
            Err(cause) => Err(PruneError { report, cause }),
        }
    }

    async fn prune_into(&self, report: &mut PruneReport, now: Timestamp) -> Result<(), store::Error> {
        for _ in 0..Self::MAX_PRUNE_ATTEMPTS {
            let layout = self.store.layout().await?;
            let window = self.retention_by(&layout);
            report.window = Some(report.window.map_or(window, |first| first.min(window)));
            report.segments_examined = 0;
            // One slice is in flight at each server.
            let servers = self.store.partitions_by_server().await?;
            let mut runs: Vec<_> =
                servers.iter().map(|_| ServerRun::new(&self.store, &layout, window.cutoff(now), now)).collect();
            let outcomes = runs.iter_mut().zip(servers).map(|(run, partitions)| run.prune_partitions(partitions));
            let failure = join_all(outcomes).await.into_iter().find_map(Result::err);
            runs.iter().for_each(|run| report.add(&run.report));
            match failure {
                None => return Ok(()),
                // The window was extended, or the data is being moved to other keys.
                Some(store::Error::LayoutChanged) => self.store.refresh_layout().await?,
                Some(error) => return Err(error),
            };
        }
        Err(store::Error::UnconfirmedLayout)
    }
}

/// A run over the partitions of one server.
struct ServerRun<'a> {
    store: &'a Store,
    layout: &'a Layout,
    cutoff: Timestamp,
    now: Timestamp,
    /// Updated with every removal, so that a failure loses no count.
    report: PruneReport,
}

impl<'a> ServerRun<'a> {
    /// Keys examined in one round trip, for which Redis takes a millisecond.
    const KEYS_PER_PAGE: usize = 250;
    const SLICE: u64 = Store::SLICE as u64;

    fn new(store: &'a Store, layout: &'a Layout, cutoff: Timestamp, now: Timestamp) -> Self {
        Self { store, layout, cutoff, now, report: PruneReport::default() }
    }

    async fn prune_partitions(&mut self, partitions: Vec<Partition>) -> Result<(), store::Error> {
        let mut refusal = None;
        for partition in partitions {
            match self.prune_partition(partition).await {
                Err(error) if error.is_refused_command() => refusal = refusal.or(Some(error)),
                outcome => outcome?,
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    async fn prune_partition(&mut self, partition: Partition) -> Result<(), store::Error> {
        let page_size = (Self::KEYS_PER_PAGE / partition.segment_keys().len()).max(1);
        let (mut cursor, mut refusal, mut full) = (None, None, Vec::new());
        loop {
            let page = self.store.index_of(partition, cursor.as_ref(), page_size).await?;
            match self.prune_segments(partition, &page.segments, &mut full).await {
                // A refusal concerns this page alone.
                Err(error) if error.is_refused_command() => refusal = refusal.or(Some(error)),
                outcome => outcome?,
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        self.store.adjust_samples(self.layout, partition, &full, self.cutoff, self.now).await?;
        refusal.map_or(Ok(()), Err)
    }

    /// Prunes `segments`. Keys with few expired members share a slice. Adds the segments that have more members than
    /// their bound to `full`.
    async fn prune_segments(
        &mut self,
        partition: Partition,
        segments: &[SegmentName<'static>],
        full: &mut Vec<SegmentName<'static>>,
    ) -> Result<(), store::Error> {
        if segments.is_empty() {
            return Ok(());
        }
        let keys = partition.segment_keys();
        let each: Vec<_> = segments.iter().flat_map(|segment| keys.clone().map(move |key| (key, segment))).collect();
        let counts = self.store.count_members(partition, &each, self.cutoff).await?;
        self.report.segments_examined += segments.len() as u64;
        let (mut sharing, mut sum) = (Vec::new(), 0);
        let (mut emptied, mut of_wrong_type) = (Vec::new(), Vec::new());
        for ((segment, counts), of_segment) in
            segments.iter().zip(counts.chunks(keys.len())).zip(each.chunks(keys.len()))
        {
            let total = match counts.iter().cloned().sum::<Result<MemberCounts, _>>() {
                Err(error) if error.is_wrong_type() => {
                    of_wrong_type.push(segment.as_str());
                    continue;
                }
                total => total?,
            };
            if total.expired == total.members {
                emptied.push(segment.as_str());
            }
            if partition.bound().is_some_and(|bound| total.members - total.expired > bound.into()) {
                full.push(segment.clone());
            }
            for (of_key, counts) in of_segment.iter().zip(counts) {
                let expired = counts.as_ref().map_or(0, |counts| counts.expired);
                if expired > Self::SLICE {
                    self.prune_large(of_key.0, segment).await?;
                    continue;
                }
                if sum + expired > Self::SLICE {
                    self.remove_expired(partition, &sharing).await?;
                    (sharing, sum) = (Vec::new(), 0);
                }
                if expired > 0 {
                    sharing.push(*of_key);
                    sum += expired;
                }
            }
        }
        self.remove_expired(partition, &sharing).await?;
        self.report.names_dropped += self.drop_unless_occupied(partition, &emptied).await?;
        self.report.segments_of_wrong_type += self.drop_unless_occupied(partition, &of_wrong_type).await?;
        Ok(())
    }

    /// Prunes a key of a segment that has more expired members than a slice.
    async fn prune_large(&mut self, key: SegmentKey, segment: &SegmentName<'_>) -> Result<(), store::Error> {
        loop {
            let slice = self.store.remove_expired_slice(self.layout, key, segment, self.cutoff).await?;
            self.report.members_removed += slice.removed;
            if slice.is_done {
                return Ok(());
            }
        }
    }

    async fn remove_expired(
        &mut self,
        partition: Partition,
        segments: &[(SegmentKey, &SegmentName<'_>)],
    ) -> Result<(), store::Error> {
        if !segments.is_empty() {
            self.report.members_removed +=
                self.store.remove_all_expired(self.layout, partition, segments, self.cutoff).await?;
        }
        Ok(())
    }

    async fn drop_unless_occupied(&self, partition: Partition, segments: &[&str]) -> Result<u64, store::Error> {
        if segments.is_empty() { Ok(0) } else { self.store.drop_unless_occupied(partition, segments).await }
    }
}
