//! The outcome of a batch: its report, and what ends it early.

use std::borrow::Cow;

use super::chunk::{ChunkResult, LineKind};
use super::rejections::Rejections;
use super::report::{LineError, Report};
use crate::{redis, store};

/// Why the rest of a batch is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    /// Redis failed. [`Ingest::finish`](super::Ingest::finish) returns the error.
    Store,
    /// Too many lines were rejected.
    Rejections,
}

/// The outcome of a batch so far.
#[derive(Debug, Default)]
pub(super) struct IngestOutcome {
    pub(super) report: Report,
    rejections: Rejections,
    /// The error for which visits were not written.
    pub(super) failure: Option<store::Error>,
}

impl IngestOutcome {
    /// Counts a line against the limit on rejected lines.
    pub(super) fn count_line(&mut self, kind: LineKind) -> Result<(), Aborted> {
        match kind {
            LineKind::Visits(visits) => self.rejections.read(visits),
            LineKind::Rejected => self.rejections.reject(),
            LineKind::Blank => {}
        }
        self.check_rejections()
    }

    pub(super) fn check_rejections(&self) -> Result<(), Aborted> {
        if self.rejections.are_too_many() { Err(Aborted::Rejections) } else { Ok(()) }
    }

    /// Adds the outcome of a chunk to the report. `None` means that its task panicked.
    pub(super) fn add_chunk(&mut self, result: Option<ChunkResult>) -> Result<(), Aborted> {
        let Some(ChunkResult { chunk, written }) = result else {
            return Err(self.fail(redis::Error::Lost("a write was broken off".to_owned()).into()));
        };
        let before = (self.report.accepted, self.report.rejected);
        for (index, line) in chunk.origins.lines().iter().enumerate() {
            match written.result(index) {
                Ok(()) => self.report.accepted += 1,
                Err(error) => self.add_failure(*line, chunk.origins.field(index), error),
            }
        }
        self.rejections.written(self.report.accepted - before.0, self.report.rejected - before.1);
        if self.failure.is_none() {
            self.report.done_through_line = chunk.last_line;
        }
        if self.is_over() { Err(Aborted::Store) } else { Ok(()) }
    }

    /// Adds a visit that was not written. Its segment, which is `field`, would exceed the limit, its segment's key has
    /// another type, or Redis failed for all visits or for those of a partition.
    fn add_failure(&mut self, line: u64, field: Cow<'static, str>, error: &store::Error) {
        if let store::Error::TooManySegments(_) = error {
            self.report.reject_segment(line, field, error);
            return;
        }
        if !error.is_outage() {
            let detail = "could not be written: Redis refused this segment's command".to_owned();
            self.report.list(LineError { line, field: Some(field), detail });
        }
        if self.failure.is_none() {
            self.report.done_through_line = line - 1;
        }
        self.fail(error.clone());
    }

    /// Keeps the error for which visits were not written. An outage takes precedence over the failure of a key.
    pub(super) fn fail(&mut self, error: store::Error) -> Aborted {
        if !self.is_over() {
            self.failure = Some(error);
        }
        Aborted::Store
    }

    /// Returns whether an outage makes further writes pointless.
    pub(super) fn is_over(&self) -> bool {
        self.failure.as_ref().is_some_and(store::Error::is_outage)
    }

    /// Returns the report, its errors in the order of their lines, and the error for which visits were not written.
    pub(super) fn finish(mut self) -> (Report, Option<store::Error>) {
        self.report.errors.sort_by_key(|error| error.line);
        (self.report, self.failure)
    }
}
