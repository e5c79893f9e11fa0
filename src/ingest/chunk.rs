//! A chunk: visits of a batch that are written together.

use super::origins::Origins;
use super::report::Report;
use crate::auth::KeyUsage;
use crate::domain::{Timestamp, visit_json};
use crate::estimator::{BulkPermit, Estimator, measure_failure};
use crate::store::{Batch, WriteOutcome};
use crate::telemetry::Metrics;

/// Visits that are written together.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    batch: Batch,
    /// The origin of each visit.
    pub(super) origins: Origins,
    /// The last line that was read, with or without a visit.
    pub(super) last_line: u64,
    /// Whether lines are only validated. The chunk then stays empty.
    pub(super) is_dry_run: bool,
}

/// A chunk and the outcome of its visits.
#[derive(Debug)]
pub(super) struct ChunkResult {
    pub(super) chunk: Chunk,
    pub(super) written: WriteOutcome,
}

/// What a line held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineKind {
    /// So many visits.
    Visits(u64),
    Blank,
    Rejected,
}

impl LineKind {
    pub(super) fn visits(self) -> u64 {
        if let Self::Visits(visits) = self { visits } else { 0 }
    }
}

impl Chunk {
    /// The longest line, in bytes. A visit is far shorter, even with every character escaped.
    pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
    /// Visits in a full chunk: enough for variadic commands to pay off. A chunk of typical visits takes half a megabyte.
    /// The segments of its last line may exceed it by less than [`Segments::MAX`](crate::domain::Segments::MAX).
    const FULL: usize = 8_192;

    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.origins.len() >= Self::FULL
    }

    /// Takes the visits. The last line stays.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self { last_line: self.last_line, is_dry_run: self.is_dry_run, ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Parses a line; `text` is `None` if it is too long. Adds its visits to the chunk, or its mistakes to `report`.
    pub(super) fn add_line(
        &mut self,
        estimator: &Estimator,
        report: &mut Report,
        number: u64,
        text: Option<&[u8]>,
        now: Timestamp,
    ) -> LineKind {
        self.last_line = number;
        let metrics = (!self.is_dry_run).then(|| &estimator.metrics().visits);
        let Some(text) = text else {
            metrics.inspect(|metrics| metrics.rejected("too_long"));
            report.reject_too_long(number, Self::MAX_LINE_BYTES);
            return LineKind::Rejected;
        };
        if text.iter().all(u8::is_ascii_whitespace) {
            return LineKind::Blank;
        }
        match visit_json::parse(text, now) {
            Ok(visits) => {
                let count = visits.segments.as_slice().len() as u64;
                if estimator.is_expired(visits.seen_at, now) {
                    metrics.inspect(|metrics| metrics.expired(count));
                    report.expired += count;
                } else if self.is_dry_run {
                    report.accepted += count;
                } else {
                    self.batch.add_all(&visits);
                    self.origins.add(number, &visits.segments);
                }
                LineKind::Visits(count)
            }
            Err(error) => {
                metrics.inspect(|metrics| metrics.rejected(error.kind()));
                report.reject(number, error);
                LineKind::Rejected
            }
        }
    }

    /// Writes the visits, and updates the metrics.
    pub(super) async fn write(self, permit: BulkPermit, metrics: &Metrics, usage: Option<&KeyUsage>) -> ChunkResult {
        let written = permit.write(&self.batch).await;
        let mut accepted = self.origins.len() as u64;
        for error in (0..self.origins.len()).filter_map(|index| written.result(index).err()) {
            accepted -= 1;
            measure_failure(&metrics.visits, error);
        }
        metrics.visits.accepted(accepted);
        if let Some(usage) = usage {
            usage.visits(accepted);
        }
        ChunkResult { chunk: self, written }
    }
}
