//! A chunk: visits of a batch that are written together.

use super::report::Report;
use crate::domain::{Timestamp, visit_json};
use crate::estimator::{BulkPermit, Estimator, measure_failure};
use crate::store::{Batch, WriteOutcome};
use crate::telemetry::Metrics;

/// Visits that are written together.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    batch: Batch,
    /// The line of each visit.
    pub(super) lines: Vec<u64>,
    /// The last line that was read, with or without a visit.
    pub(super) last_line: u64,
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
    Visit,
    Blank,
    Rejected,
}

impl Chunk {
    /// The longest line, in bytes. A visit is far shorter, even with every character escaped.
    pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
    /// Visits in a chunk: enough for variadic commands to pay off. A chunk of typical visits takes half a megabyte.
    const MAX_VISITS: usize = 8_192;

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= Self::MAX_VISITS
    }

    /// Takes the visits. The last line stays.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self { last_line: self.last_line, ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Parses a line; `text` is `None` if it is too long. Adds its visit to the chunk, or its mistakes to `report`.
    pub(super) fn add_line(
        &mut self,
        estimator: &Estimator,
        report: &mut Report,
        number: u64,
        text: Option<&[u8]>,
        now: Timestamp,
    ) -> LineKind {
        self.last_line = number;
        let metrics = &estimator.metrics().visits;
        let Some(text) = text else {
            metrics.rejected("too_long");
            report.reject_too_long(number, Self::MAX_LINE_BYTES);
            return LineKind::Rejected;
        };
        if text.iter().all(u8::is_ascii_whitespace) {
            return LineKind::Blank;
        }
        match visit_json::parse(text, now) {
            Ok(visit) if estimator.is_expired(&visit, now) => {
                metrics.expired();
                report.expired += 1;
                LineKind::Visit
            }
            Ok(visit) => {
                self.batch.add(&visit);
                self.lines.push(number);
                LineKind::Visit
            }
            Err(error) => {
                metrics.rejected(error.kind());
                report.reject(number, error);
                LineKind::Rejected
            }
        }
    }

    /// Writes the visits, and updates the metrics.
    pub(super) async fn write(self, permit: BulkPermit, metrics: &Metrics) -> ChunkResult {
        let written = permit.write(&self.batch).await;
        let mut accepted = self.lines.len() as u64;
        for error in (0..self.lines.len()).filter_map(|index| written.result(index).err()) {
            accepted -= 1;
            measure_failure(&metrics.visits, error);
        }
        metrics.visits.accepted(accepted);
        ChunkResult { chunk: self, written }
    }
}
