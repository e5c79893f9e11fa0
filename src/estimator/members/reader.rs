//! A read of the partitions of one key set.

use std::collections::BTreeMap;

use tokio::sync::Semaphore;

use super::error::MemberListError;
use super::merge::Merge;
use super::query::MembersQuery;
use crate::domain::{Depth, SegmentName, Timestamp};
use crate::store::{self, KeySet, Member, MembersCursor, Partition, SegmentDepth, SegmentKey, Store};

/// A read of the partitions of one key set. Of a segment that keeps a sample, it has the members by the depth that each
/// partition had when the read began.
#[derive(Debug)]
pub struct MemberReader {
    keys: KeySet,
    /// The depth of each partition; empty if segments keep all members.
    depths: BTreeMap<Partition, SegmentDepth>,
    /// The maximum number of members of a page.
    page_size: usize,
    merge: Merge<WeightedMember, (SegmentKey, MembersCursor)>,
}

/// A member, and the number of users that it stands for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightedMember {
    pub member: Member,
    pub weight: u64,
}

/// The result of a read of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The merge has the pages that it needs.
    Complete,
    /// Counts read another key set now.
    OtherKeySet,
    /// A depth has been raised, so that members may be missing.
    Raised,
}

impl MemberReader {
    /// Members that a read of all partitions returns.
    const MEMBERS: usize = 4_096;
    /// The fewest members of a page.
    const MIN_PAGE: usize = 8;

    /// Begins to read after the last member that `query` has listed.
    pub async fn begin(store: &Store, query: &MembersQuery, cutoff: Timestamp) -> Result<Self, MemberListError> {
        let expired = Member::last_at(cutoff);
        let position = query.from.as_ref().map_or(&expired, |from| from.max(&expired));
        let keys = store.layout().await?.read();
        let mut depths = BTreeMap::new();
        if keys.max_members().is_some() {
            let partitions: Vec<_> = keys.all().collect();
            let found = store.segment_depths(&partitions, &query.segment).await?;
            depths.extend(partitions.into_iter().zip(found));
        }
        let of_all = || depths.values().map(|depth| depth.at(cutoff));
        if let (Some(min), Some(max)) = (of_all().min(), of_all().max())
            && max > Depth::ZERO
            && !query.accepts_sample
        {
            return Err(MemberListError::Sampled { segment: query.segment.clone(), depths: [min, max] });
        }
        let is_kept = |key: &SegmentKey| key.level.is_none_or(|level| depths[&key.partition].written().keeps(level));
        let sources: Vec<_> = keys.segment_keys().filter(is_kept).collect();
        let page_size = (Self::MEMBERS / sources.len()).clamp(Self::MIN_PAGE, Store::PAGE);
        let cursors = store.cursors_after(&query.segment, sources, position).await?;
        Ok(Self { keys, depths, page_size, merge: Merge::new(cursors) })
    }

    /// Reads the pages that the merge needs.
    pub async fn read(
        &mut self,
        store: &Store,
        requests: &Semaphore,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<ReadOutcome, store::Error> {
        let due = self.merge.due(self.page_size / 2);
        if due.is_empty() {
            return Ok(ReadOutcome::Complete);
        }
        let (sources, cursors): (Vec<_>, Vec<_>) = due.into_iter().map(|(source, rest)| (source, rest.clone())).unzip();
        let pages = {
            let _request = requests.acquire().await.expect("the semaphore is never closed");
            store.pages_after(segment, self.keys, &cursors, self.page_size).await?
        };
        let Some(pages) = pages else { return Ok(ReadOutcome::OtherKeySet) };
        // Behind the pages: a raise in between has deleted members that its depth leaves out.
        if self.is_raised(store, segment, cutoff, cursors.iter().map(|(key, _)| key.partition)).await? {
            return Ok(ReadOutcome::Raised);
        }
        for ((source, (key, _)), (page, next)) in sources.into_iter().zip(cursors).zip(pages) {
            let depth = self.depths.get(&key.partition).copied().unwrap_or_default();
            let live = page.into_iter().filter(|member| member.score > cutoff.into());
            let weighted = live.filter_map(|member| {
                let depth = depth.of_member(member.score);
                let is_kept = key.level.is_none_or(|level| depth.keeps(level));
                is_kept.then(|| WeightedMember { member, weight: depth.weight() })
            });
            self.merge.fill(source, weighted, next.map(|next| (key, next)));
        }
        Ok(ReadOutcome::Complete)
    }

    /// Returns whether a raise in any of `partitions`, which may repeat, has deleted members since the beginning.
    async fn is_raised(
        &self,
        store: &Store,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
        partitions: impl Iterator<Item = Partition>,
    ) -> Result<bool, store::Error> {
        if self.depths.is_empty() {
            return Ok(false);
        }
        let mut partitions: Vec<_> = partitions.collect();
        partitions.sort_unstable();
        partitions.dedup();
        let depths = store.segment_depths(&partitions, segment).await?;
        let mut depths = partitions.iter().zip(depths);
        Ok(depths.any(|(partition, depth)| !depth.still_keeps(self.depths[partition], cutoff)))
    }

    /// Takes the next members, in order of time and then of name.
    pub fn take(&mut self) -> Vec<WeightedMember> {
        self.merge.take()
    }

    /// Whether all members were taken.
    pub fn is_at_end(&self) -> bool {
        self.merge.is_at_end()
    }
}
