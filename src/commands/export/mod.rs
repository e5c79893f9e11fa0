//! `segment-estimator export`: writes all live visits as NDJSON, page by page, in the format that `import` reads.

mod command;
mod outcome;
mod writer;

use std::io::Write;

pub(super) use self::command::ExportCommand;
pub use self::outcome::{ExportCounts, ExportError};
use self::writer::Writer;
use super::progress::Progress;
use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::{KeySet, Store};

/// An export of live visits. The data set may be in use.
#[derive(Debug)]
pub struct Export {
    store: Store,
    window: Window,
    /// The segments to export. Empty means all.
    segments: Vec<SegmentName<'static>>,
    /// Whether samples are exported as well, and each line has its weight.
    has_weights: bool,
}

impl Export {
    /// Returns an export of the live visits to `segments`, or to all segments if it is empty.
    #[must_use]
    pub fn new(store: Store, window: Window, segments: Vec<SegmentName<'static>>) -> Self {
        Self { store, window, segments, has_weights: false }
    }

    /// Exports segments that keep a sample as well, and writes the weight of each line: the number of users that it
    /// stands for.
    #[must_use]
    pub fn with_weights(self) -> Self {
        Self { has_weights: true, ..self }
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
        if !self.has_weights {
            self.refuse_samples(keys, cutoff).await?;
        }
        let (has_weights, exported) = (self.has_weights, ExportCounts::default());
        let mut writer = Writer { store: &self.store, out, cutoff, has_weights, progress, exported };
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

impl Export {
    /// Refuses an export of segments that keep a sample.
    async fn refuse_samples(&self, keys: KeySet, cutoff: Timestamp) -> Result<(), ExportError> {
        let sampled = self.store.depths_in(keys, cutoff).await?;
        let is_chosen =
            |name: &str| self.segments.is_empty() || self.segments.iter().any(|segment| segment.as_str() == name);
        match sampled.into_iter().find(|(name, _)| is_chosen(name)) {
            Some((segment, depth)) => Err(ExportError::Sampled { segment, weight: depth.weight() }),
            None => Ok(()),
        }
    }
}
