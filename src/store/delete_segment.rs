//! The deletion of a segment: members, name, history and change record.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::keys::scores_after;
use super::layout::{Attempt, KnownLayout, SegmentDeletion};
use super::tombstones::Tombstone;
use super::{Error, KeySet, Partition, Phase, Resharding, Store};
use crate::domain::{Depth, Estimate, SegmentName, Timestamp};
use crate::redis;

/// A deleted segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    /// Whether there was anything to delete.
    pub is_known: bool,
    /// The number of members that were seen after the cutoff.
    pub count: Estimate,
}

/// What the attempts have deleted so far.
#[derive(Debug, Default)]
struct Progress {
    /// The number of members that counted, of each key set.
    counts: Vec<(KeySet, Estimate)>,
    was_indexed: bool,
}

impl Progress {
    fn add(&mut self, keys: KeySet, count: Estimate, was_indexed: bool) {
        self.was_indexed |= was_indexed;
        match self.counts.iter_mut().find(|(of, _)| *of == keys) {
            Some((_, sum)) => *sum = *sum + count,
            None => self.counts.push((keys, count)),
        }
    }

    /// Returns the count of the key set that had most members. During a resharding, each member is in both key sets, or
    /// not copied yet.
    fn count(&self) -> Estimate {
        self.counts.iter().map(|(_, count)| *count).max_by_key(|count| count.count()).unwrap_or_default()
    }
}

impl Store {
    /// Number of partitions that a request writes to at most, so that Redis runs other requests in between.
    const PARTITIONS_PER_REQUEST: usize = 64;

    /// Deletes `segment`, and counts its members that were seen after `cutoff` in the same atomic step of each partition.
    /// Waits for replicas as [`WriteAcks`](crate::redis::WriteAcks) requires. Deletes its history and its change record
    /// as well, unless `keeps_history` is true; keys of other programs stay. As for samples, it waits for no replica then.
    ///
    /// Redis unlinks the members in one step, whatever their number, and frees the memory in the background. Visits that
    /// were acknowledged before the call are deleted. A visit that is recorded during the call may remain; one that is
    /// recorded after it creates the segment again.
    ///
    /// A history that is sampled at the same time may remain, with this sample alone. Therefore it is deleted last: the
    /// sampler finds no such segment by then, unless it has counted it already.
    ///
    /// A segment that keeps a sample is marked first, for three seconds, so that no instance drops a visit that is
    /// recorded after the deletion.
    ///
    /// A tombstone, if one is needed, expires after `retention`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't acknowledge all of it; any part may be deleted. [`Error::ForeignKey`] if the
    /// segment's key holds a value of another program, which stays as it is.
    pub async fn delete_segment(
        &self,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
        now: Timestamp,
        keeps_history: bool,
        retention: Duration,
    ) -> Result<DeletedSegment, Error> {
        // A stale attempt has deleted the members of some partitions already.
        let progress = Mutex::new(Progress::default());
        let on_deleted = |keys, count, was_indexed| {
            progress.lock().unwrap_or_else(PoisonError::into_inner).add(keys, count, was_indexed);
        };
        let on_deleted = &on_deleted;
        self.with_layout(|known| async move {
            if let Some(Resharding { to, phase: Phase::Backfill }) = known.layout.resharding() {
                let tombstone = Tombstone::Segment(segment.clone());
                if let Attempt::Stale = self.add_tombstones(&tombstone, to.all().collect(), retention, &known).await? {
                    return Ok(Attempt::Stale);
                }
            }
            for keys in known.layout.deleted_from() {
                if let Attempt::Stale = self.delete_from(keys, segment, (cutoff, now), &known, on_deleted).await? {
                    return Ok(Attempt::Stale);
                }
            }
            // The move may have inherited the depth of the old key set between both deletions.
            if let Some(Resharding { to, phase: Phase::Backfill }) = known.layout.resharding()
                && self.complete_depth(to, segment).await? != Depth::ZERO
                && let Attempt::Stale = self.delete_from(to, segment, (cutoff, now), &known, |_, _, _| ()).await?
            {
                return Ok(Attempt::Stale);
            }
            Ok(Attempt::Committed(()))
        })
        .await?;
        if let Some(limit) = &self.segment_limit {
            limit.forget(segment.as_str());
        }
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let has_history = !keeps_history && self.delete_history(segment).await?;
        Ok(DeletedSegment {
            is_known: progress.was_indexed || progress.count().count() > 0 || has_history,
            count: progress.count(),
        })
    }

    /// Deletes `segment` from all partitions of `keys`. Calls `on_deleted` with the count of each partition, and whether
    /// its index had the name.
    async fn delete_from(
        &self,
        keys: KeySet,
        segment: &SegmentName<'_>,
        (cutoff, now): (Timestamp, Timestamp),
        known: &KnownLayout,
        on_deleted: impl Fn(KeySet, Estimate, bool),
    ) -> Result<Attempt<()>, Error> {
        let (first, mut foreign, mut is_stale) = (scores_after(cutoff), None, false);
        let (mut remaining, mut changes, started): (Vec<_>, _, _) = (keys.all().collect(), 0, Instant::now());
        loop {
            let (mut repeated, mut has_other_depth) = (Vec::new(), false);
            let depths = self.prepare_deletion(&remaining, segment, now + started.elapsed(), known).await?;
            for partitions in self.chunks_by_server(remaining).await? {
                let deletions = partitions.iter().map(|partition| {
                    let depth = depths.get(partition).copied();
                    (partition.slot(), self.segment_deletion(&known.layout, *partition, segment, &first, depth))
                });
                // A repetition would count nobody.
                let request = self.writes_to(&partitions, deletions).once().nil_for(redis::Error::is_try_again);
                let (answers, is_confirmed) = self.send_writes(request, known).await?;
                is_stale |= !is_confirmed;
                for (partition, answer) in partitions.into_iter().zip(answers) {
                    match SegmentDeletion::parse(answer)? {
                        SegmentDeletion::Deleted { counts, was_indexed } => {
                            let depth = depths.get(&partition).map_or(Depth::ZERO, |depth| depth.at(cutoff));
                            let kept = counts[depth.number().into()..].iter().sum();
                            on_deleted(keys, Estimate::sampled(kept, depth), was_indexed);
                        }
                        SegmentDeletion::ForeignKey => foreign = Some(partition),
                        SegmentDeletion::Stale => is_stale = true,
                        SegmentDeletion::OtherDepth => {
                            has_other_depth = true;
                            repeated.push(partition);
                        }
                        SegmentDeletion::Migrating => repeated.push(partition),
                    }
                }
            }
            if is_stale {
                return Ok(Attempt::Stale);
            }
            if repeated.is_empty() {
                break;
            }
            changes += usize::from(has_other_depth);
            if changes > Self::ATTEMPTS {
                return Err(Error::UnsettledDepth(segment.as_str().to_owned()));
            }
            tokio::time::sleep(Self::SLOT_PAUSE).await;
            remaining = repeated;
        }
        match foreign {
            Some(partition) => Err(self.foreign_key(self.key_names.segments_like(partition, segment.as_str()))),
            None => Ok(Attempt::Committed(())),
        }
    }

    /// Groups `partitions` by server, a request's worth at a time.
    pub(super) async fn chunks_by_server(&self, partitions: Vec<Partition>) -> Result<Vec<Vec<Partition>>, Error> {
        let servers = self.client.group_by_server(partitions, |partition: &Partition| partition.slot()).await?;
        let chunks = servers.iter().flat_map(|partitions| partitions.chunks(Self::PARTITIONS_PER_REQUEST));
        Ok(chunks.map(<[_]>::to_vec).collect())
    }
}
