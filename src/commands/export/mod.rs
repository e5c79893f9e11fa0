//! `segment-estimator export`: writes all live visits as NDJSON, page by page, in the format that `import` reads.

mod command;

use std::io::{self, Write};
use std::time::Instant;

pub(super) use self::command::ExportCommand;
use super::backoff::Backoff;
use super::progress::Progress;
use crate::domain::visit_json::RawVisits;
use crate::domain::{SegmentName, Segments, Timestamp, Window};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::{self, Partition, SegmentKey, Store};

/// An export of live visits. The data set may be in use.
#[derive(Debug)]
pub struct Export {
    store: Store,
    window: Window,
    /// The segments to export. Empty means all.
    segments: Vec<SegmentName<'static>>,
}

/// What was exported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ExportCounts {
    /// A user who visits a segment during the export may be written twice.
    pub visits: u64,
    /// Segments that were skipped because their keys aren't sorted sets. Each partition counts separately.
    pub segments_failed: u64,
}

/// Why an export is incomplete, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output failed.
    #[error("failed to write the visits: {0}")]
    Output(#[from] io::Error),
    /// Redis can't serve.
    #[error("Redis can't serve: {0}")]
    Store(#[from] store::Error),
    /// There is no data set.
    #[error("there is no data set; give the redis_url or data_dir and the redis_key_prefix of the service")]
    NoDataSet,
    /// The data set has no such segments. Has each with similar names.
    #[error("the data set has no segment {0}")]
    UnknownSegments(String),
    /// The data set was moved to other partitions during the export.
    #[error(
        "the data set was moved to other partitions during the export, so visits are missing; run the export again"
    )]
    PartitionsChanged,
}

impl Export {
    /// Names of segments in one page of an index.
    const INDEX_PAGE: usize = 1_000;

    /// Returns an export of the live visits to `segments`, or to all segments if it is empty.
    #[must_use]
    pub fn new(store: Store, window: Window, segments: Vec<SegmentName<'static>>) -> Self {
        Self { store, window, segments }
    }

    /// Writes every visit that is live at the start to `out`. A visit during the export may be written with its earlier
    /// time, its later time, or both.
    ///
    /// # Errors
    ///
    /// An [`ExportError`]. The lines before the error are valid.
    pub async fn write_to(
        &self,
        out: &mut impl Write,
        clock: &Clock,
        progress: Option<&Progress>,
    ) -> Result<ExportCounts, ExportError> {
        // An export writes no layout record either.
        if self.store.existing_layout().await?.is_none() {
            return Err(ExportError::NoDataSet);
        }
        self.check_segments().await?;
        clock.sync(&self.store).await?;
        let cutoff = self.window.cutoff(clock.now());
        self.store.check_layout().await?;
        let keys = self.store.layout().await?.read();
        let mut writer = Writer { store: &self.store, out, cutoff, progress, exported: ExportCounts::default() };
        for partition in keys.all() {
            if self.segments.is_empty() {
                writer.write_partition(partition).await?;
            }
            for segment in &self.segments {
                writer.write_segment(partition, segment).await?;
            }
        }
        writer.out.flush()?;
        let exported = writer.exported;
        self.store.check_layout().await?;
        if self.store.layout().await?.read() == keys { Ok(exported) } else { Err(ExportError::PartitionsChanged) }
    }
}

impl Export {
    /// Checks that the chosen segments are known. A misspelt name must not look like an empty segment, because a script
    /// may delete what it has exported.
    async fn check_segments(&self) -> Result<(), ExportError> {
        const SIMILAR: usize = 3;
        let estimator = Estimator::new(self.store.clone(), self.window);
        let segments: Vec<_> = self.segments.iter().map(|segment| (segment, false)).collect();
        let known = estimator.are_known(&segments).await?;
        let unknown: Vec<_> = self.segments.iter().zip(known).filter(|(_, is_known)| !is_known).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<_> = unknown.into_iter().map(|(segment, _)| segment).collect();
        let similar = estimator.similar_names(&unknown, SIMILAR).await?;
        let described = unknown.into_iter().zip(similar).map(|(segment, similar)| {
            let names: Vec<_> = similar.iter().map(SegmentName::as_str).collect();
            if names.is_empty() {
                segment.to_string()
            } else {
                format!("{segment} (did you mean {}?)", names.join(", "))
            }
        });
        Err(ExportError::UnknownSegments(described.collect::<Vec<_>>().join(", ")))
    }
}

/// The state of an export in progress.
struct Writer<'a, W> {
    store: &'a Store,
    out: &'a mut W,
    cutoff: Timestamp,
    progress: Option<&'a Progress>,
    exported: ExportCounts,
}

impl<W: Write> Writer<'_, W> {
    async fn write_partition(&mut self, partition: Partition) -> Result<(), ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = retry(|| store.index_of(partition, cursor.as_ref(), Export::INDEX_PAGE)).await?;
            for segment in &page.segments {
                self.write_segment(partition, segment).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn write_segment(&mut self, partition: Partition, segment: &SegmentName<'_>) -> Result<(), ExportError> {
        for key in partition.segment_keys() {
            if !self.write_key(key, segment).await? {
                self.exported.segments_failed += 1;
                break;
            }
        }
        Ok(())
    }

    /// Writes the members of `segment` in `key`. Returns false if the key has another type.
    async fn write_key(&mut self, key: SegmentKey, segment: &SegmentName<'_>) -> Result<bool, ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = match retry(|| store.members(key, segment, cursor.as_ref())).await {
                Err(error) if error.is_wrong_type() => return Ok(false),
                page => page?,
            };
            for (user_id, seen_at) in page.members {
                if seen_at > self.cutoff {
                    let segments = Segments::One(segment.clone());
                    RawVisits { user_id, segments, seen_at: Some(seen_at) }.write_lines(&mut self.out)?;
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
