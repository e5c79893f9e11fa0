//! Writing the visits of each segment in each partition.

use std::io::Write;
use std::time::Instant;

use super::outcome::{ExportCounts, ExportError};
use crate::commands::backoff::Backoff;
use crate::commands::progress::Progress;
use crate::domain::visit_json::RawVisits;
use crate::domain::{Depth, SegmentName, Segments, Timestamp};
use crate::store::{self, Partition, SegmentDepth, SegmentKey, Store};

/// The state of an export in progress.
pub(super) struct Writer<'a, W> {
    pub(super) store: &'a Store,
    pub(super) out: &'a mut W,
    pub(super) cutoff: Timestamp,
    pub(super) has_weights: bool,
    pub(super) progress: Option<&'a Progress>,
    pub(super) exported: ExportCounts,
}

impl<W: Write> Writer<'_, W> {
    /// Names of segments in one page of an index.
    const INDEX_PAGE: usize = 1_000;

    pub(super) async fn write_partition(&mut self, partition: Partition) -> Result<(), ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = retry(|| store.index_of(partition, cursor.as_ref(), Self::INDEX_PAGE)).await?;
            for segment in &page.segments {
                self.write_segment(partition, segment).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) async fn write_segment(
        &mut self,
        partition: Partition,
        segment: &SegmentName<'_>,
    ) -> Result<(), ExportError> {
        if partition.bound().is_some() {
            return self.write_bounded_segment(partition, segment).await;
        }
        if !self.write_key(SegmentKey { partition, level: None }, segment, SegmentDepth::default()).await? {
            self.exported.segments_failed += 1;
        }
        Ok(())
    }

    /// Writes the levels of `segment` that are kept.
    async fn write_bounded_segment(
        &mut self,
        partition: Partition,
        segment: &SegmentName<'_>,
    ) -> Result<(), ExportError> {
        let (store, cutoff) = (self.store, self.cutoff);
        let depth = retry(|| store.segment_depth(partition, segment)).await?;
        if depth.at(cutoff) != Depth::ZERO && !self.has_weights {
            return Err(ExportError::Shrunk(segment.clone().into_owned()));
        }
        let keys: Vec<_> =
            depth.written().levels().map(|level| (SegmentKey { partition, level: Some(level) }, segment)).collect();
        // Most levels are empty.
        let counts = retry(|| store.count_members(partition, &keys, cutoff)).await?;
        for ((key, segment), counts) in keys.into_iter().zip(counts) {
            let is_empty = counts.is_ok_and(|counts| counts.members == counts.expired);
            if !is_empty && !self.write_key(key, segment, depth).await? {
                self.exported.segments_failed += 1;
                return Ok(());
            }
        }
        // A raise in the meantime has deleted levels.
        match retry(|| store.segment_depth(partition, segment)).await? {
            now if now.still_keeps(depth, cutoff) => Ok(()),
            _ => Err(ExportError::Shrunk(segment.clone().into_owned())),
        }
    }

    /// Writes those members of `segment`, a sample of `depth`, that are in `key`. Returns false if the key has another
    /// type.
    async fn write_key(
        &mut self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        depth: SegmentDepth,
    ) -> Result<bool, ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = match retry(|| store.members(key, segment, cursor.as_ref())).await {
                Err(error) if error.is_wrong_type() => return Ok(false),
                page => page?,
            };
            for (user_id, seen_at) in page.members {
                let depth = depth.at(seen_at);
                if seen_at > self.cutoff && key.level.is_none_or(|level| depth.keeps(level)) {
                    let segments = Segments::One(segment.clone());
                    let visits = RawVisits { user_id, segments, seen_at: Some(seen_at) };
                    visits.write_weighted_lines(self.has_weights.then(|| depth.weight()), &mut self.out)?;
                    self.exported.visits += 1;
                }
            }
            if let Some(progress) = self.progress {
                progress.update(self.exported.visits, self.exported.visits);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(true);
            }
        }
    }
}

/// Retries `request` with backoff during an outage of Redis.
async fn retry<T, F>(request: impl Fn() -> F) -> Result<T, store::Error>
where
    F: Future<Output = Result<T, store::Error>>,
{
    let mut backoff = Backoff::default();
    loop {
        match request().await {
            Err(error) if error.is_outage() => match backoff.next_delay(None, Instant::now()) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            },
            result => return result,
        }
    }
}
