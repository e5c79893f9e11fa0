//! Ingests many visits: parses lines, collects the visits in chunks, and writes chunks while it parses the next lines.
//!
//! Memory is bounded, whatever the number of lines: one line, the chunk that is being filled, and a few chunks in flight. Nothing
//! here depends on HTTP or reads a clock.

mod lines;
mod rejections;
mod report;

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::Instrument as _;

pub(crate) use self::lines::Lines;
use self::rejections::Rejections;
pub use self::report::{LineError, Report};
use crate::domain::{Timestamp, visit_json};
use crate::estimator::{Estimator, measure_failure};
use crate::redis;
use crate::store::{self, Batch};
use crate::telemetry::{Metrics, TRACED};

/// Ingests the visits of one batch. Applies backpressure if Redis is slower than the input.
#[derive(Debug)]
pub struct Ingest {
    estimator: Estimator,
    lines: Lines,
    chunk: Chunk,
    /// In the order of their lines.
    in_flight: VecDeque<JoinHandle<ChunkResult>>,
    report: Report,
    rejections: Rejections,
    failure: Option<store::Error>,
}

/// Visits that are written together.
#[derive(Debug, Default)]
struct Chunk {
    batch: Batch,
    /// The line of each visit.
    lines: Vec<u64>,
    /// The last line that was read, whatever it held.
    last_line: u64,
}

/// A chunk and the outcome of its visits.
#[derive(Debug)]
struct ChunkResult {
    chunk: Chunk,
    written: store::WriteOutcome,
}

impl ChunkResult {
    fn measure(&self, metrics: &Metrics) {
        let visits = self.chunk.lines.len();
        let mut accepted = visits as u64;
        for error in (0..visits).filter_map(|index| self.written.result(index).err()) {
            accepted -= 1;
            measure_failure(&metrics.visits, error);
        }
        metrics.visits.accepted(accepted);
    }
}

/// Why the rest of a batch is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    /// Redis failed. [`Ingest::finish`] returns the error.
    Store,
    /// Too many lines were rejected.
    Rejections,
}

/// What a line held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Visit,
    Blank,
    Rejected,
}

impl Ingest {
    /// The longest line, in bytes. A visit is far shorter, even with every character escaped.
    pub const MAX_LINE_BYTES: usize = 16 * 1024;
    /// Visits in a chunk: enough for variadic commands to pay off. A chunk of typical visits takes half a megabyte.
    const CHUNK_VISITS: usize = 8_192;
    /// Chunks of one batch in flight. Two would keep Redis busy if replies took no time.
    const MAX_CHUNKS_IN_FLIGHT: usize = 4;
    /// How long lines are parsed before the task yields. A piece may have tens of thousands of lines.
    const MAX_RUN: Duration = Duration::from_millis(1);
    /// How many consecutive rejected lines abort a batch.
    pub const MAX_REJECTED_IN_A_ROW: u64 = Rejections::MAX_IN_A_ROW;
    /// The lines of a block. A batch is aborted if most lines of a block are rejected.
    pub const REJECTION_BLOCK: u64 = Rejections::BLOCK;

    /// Starts a batch.
    #[must_use]
    pub fn new(estimator: Estimator) -> Self {
        Self {
            estimator,
            lines: Lines::new(Self::MAX_LINE_BYTES),
            chunk: Chunk::default(),
            in_flight: VecDeque::new(),
            report: Report::default(),
            rejections: Rejections::default(),
            failure: None,
        }
    }

    /// Ingests the lines that `piece` of a stream completes, each a visit in JSON that arrives at `now`. Reports invalid lines and
    /// continues. Skips blank lines. Returns the number of lines.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed, or too many lines were rejected.
    pub async fn feed(&mut self, mut piece: &[u8], now: Timestamp) -> Result<u64, Aborted> {
        /// Reading the clock takes as long as a blank line, or several empty ones.
        const LINES_PER_CLOCK_READ: u64 = 64;
        const MAX_EMPTY_LINES: usize = 1_024;
        let (before, mut since, mut lines) = (self.lines.count(), Instant::now(), 0_u64);
        loop {
            // Empty lines have a loop of their own: a body may have millions, and other lines take a hundred times as long.
            let empty = self.lines.pass_over_empty(&mut piece, MAX_EMPTY_LINES);
            self.chunk.last_line = self.lines.count();
            if empty < MAX_EMPTY_LINES {
                let Some(line) = self.lines.next(&mut piece) else { break };
                let number = line.number;
                match parse_line(&self.estimator, &mut self.chunk, &mut self.report, number, line.text, now) {
                    LineKind::Blank => {}
                    kind => self.rejections.read(kind == LineKind::Rejected),
                }
                self.check_rejections()?;
                self.write_if_full().await?;
                lines += 1;
                if !lines.is_multiple_of(LINES_PER_CLOCK_READ) {
                    continue;
                }
            }
            if since.elapsed() >= Self::MAX_RUN {
                tokio::task::yield_now().await;
                since = Instant::now();
            }
        }
        Ok(self.lines.count() - before)
    }

    /// Ingests one visit in JSON, which is reported as line `number`.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed.
    pub async fn feed_visit(&mut self, number: u64, json: &[u8], now: Timestamp) -> Result<(), Aborted> {
        let json = (json.len() <= Self::MAX_LINE_BYTES).then_some(json);
        parse_line(&self.estimator, &mut self.chunk, &mut self.report, number, json, now);
        self.write_if_full().await
    }

    /// Writes a partial chunk if none is in flight, so that visits of a slow stream don't wait for each other.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed.
    pub async fn write_if_idle(&mut self) -> Result<(), Aborted> {
        if self.in_flight.is_empty() { self.write().await } else { Ok(()) }
    }

    /// Waits for the oldest chunk in flight, or forever if there is none. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed, or too many visits were refused.
    pub async fn progress(&mut self) -> Result<(), Aborted> {
        self.await_oldest().await?;
        self.check_rejections()
    }

    fn check_rejections(&self) -> Result<(), Aborted> {
        if self.rejections.are_too_many() { Err(Aborted::Rejections) } else { Ok(()) }
    }

    async fn await_oldest(&mut self) -> Result<(), Aborted> {
        let Some(oldest) = self.in_flight.front_mut() else { return std::future::pending().await };
        let result = oldest.await;
        self.in_flight.pop_front();
        self.report_chunk(result.ok())
    }

    /// Ingests the last line of the stream, if it has no line end. [`Self::finish`] writes it.
    pub fn end(&mut self, now: Timestamp) {
        if let Some(line) = self.lines.last() {
            parse_line(&self.estimator, &mut self.chunk, &mut self.report, line.number, line.text, now);
        }
    }

    /// Writes the rest unless Redis failed, and waits for all chunks in flight. Returns the report, and the error for which visits were
    /// not written.
    pub async fn finish(mut self) -> (Report, Option<store::Error>) {
        if !self.is_over() {
            // A failure is kept in `self.failure`, here and below.
            let _ = self.write().await;
        }
        // Visits of a chunk that was never sent.
        if let Some(error) = &self.failure {
            self.estimator.metrics().visits.failed(error.kind(), self.chunk.lines.len() as u64);
        }
        while !self.in_flight.is_empty() {
            let _ = self.await_oldest().await;
        }
        // Lines after the last visit are done when all visits are.
        if self.failure.is_none() {
            self.report.done_through_line = self.chunk.last_line;
        }
        self.report.errors.sort_by_key(|error| error.line);
        (self.report, self.failure)
    }

    /// Returns whether an outage makes further writes pointless.
    fn is_over(&self) -> bool {
        self.failure.as_ref().is_some_and(store::Error::is_outage)
    }

    async fn write_if_full(&mut self) -> Result<(), Aborted> {
        if self.chunk.lines.len() >= Self::CHUNK_VISITS { self.write().await } else { Ok(()) }
    }

    /// Starts to write the chunk, if it has visits. Waits if too many chunks are in flight.
    async fn write(&mut self) -> Result<(), Aborted> {
        if self.chunk.lines.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() >= Self::MAX_CHUNKS_IN_FLIGHT {
            self.await_oldest().await?;
        }
        let permit = self.estimator.acquire_bulk_permit().await.map_err(|error| self.fail(error))?;
        let chunk = mem::take(&mut self.chunk);
        self.chunk.last_line = chunk.last_line;
        let span = tracing::info_span!(target: TRACED, "write chunk", visits = chunk.lines.len());
        let estimator = self.estimator.clone();
        let writing = async move {
            let written = permit.write(&chunk.batch).await;
            let result = ChunkResult { chunk, written };
            // Measured in the task, since the sender may have disconnected.
            result.measure(estimator.metrics());
            result
        };
        self.in_flight.push_back(tokio::spawn(writing.instrument(span)));
        Ok(())
    }

    /// Adds the outcome of a chunk to the report. `None` means that its task panicked.
    fn report_chunk(&mut self, result: Option<ChunkResult>) -> Result<(), Aborted> {
        let Some(ChunkResult { chunk, written }) = result else {
            return Err(self.fail(redis::Error::Lost("a write was broken off".to_owned()).into()));
        };
        let before = (self.report.accepted, self.report.rejected);
        for (index, line) in chunk.lines.into_iter().enumerate() {
            match written.result(index) {
                Ok(()) => self.report.accepted += 1,
                Err(error) => self.report_failure(line, error),
            }
        }
        self.rejections.written(self.report.accepted - before.0, self.report.rejected - before.1);
        if self.failure.is_none() {
            self.report.done_through_line = chunk.last_line;
        }
        if self.is_over() { Err(Aborted::Store) } else { Ok(()) }
    }

    /// Reports a visit that was not written. Its segment would exceed the limit, its segment's key has another type, or Redis failed
    /// for all visits or for those of a partition.
    fn report_failure(&mut self, line: u64, error: &store::Error) {
        if let store::Error::TooManySegments(_) = error {
            self.report.reject_segment(line, error.to_string());
            return;
        }
        if !error.is_outage() {
            let detail = "could not be written: Redis refused this segment's command".to_owned();
            self.report.list(LineError { line, field: Some("segment".into()), detail });
        }
        if self.failure.is_none() {
            self.report.done_through_line = line - 1;
        }
        self.fail(error.clone());
    }

    /// Keeps the error for which visits were not written. An outage takes precedence over the failure of a key.
    fn fail(&mut self, error: store::Error) -> Aborted {
        if !self.is_over() {
            self.failure = Some(error);
        }
        Aborted::Store
    }
}

/// Parses a line. Adds its visit to `chunk`, or its mistakes to `report`.
fn parse_line(
    estimator: &Estimator,
    chunk: &mut Chunk,
    report: &mut Report,
    number: u64,
    text: Option<&[u8]>,
    now: Timestamp,
) -> LineKind {
    chunk.last_line = number;
    let metrics = &estimator.metrics().visits;
    let Some(text) = text else {
        metrics.rejected("too_long");
        report.reject_too_long(number, Ingest::MAX_LINE_BYTES);
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
            chunk.batch.add(&visit);
            chunk.lines.push(number);
            LineKind::Visit
        }
        Err(error) => {
            metrics.rejected(error.kind());
            report.reject(number, error);
            LineKind::Rejected
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::domain::Window;
    use crate::redis::{Client, Limits, RedisUrl};
    use crate::store::Store;

    /// 2026-11-28, noon.
    const NOW: Timestamp = Timestamp::from_millis(1_795_867_200_000);

    /// An ingest into a Redis that can't be reached.
    fn ingest() -> Ingest {
        let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), max_pending: 1 };
        let connection = Client::new(RedisUrl::unix("/nowhere/redis.sock".into()), limits, Arc::default());
        Ingest::new(Estimator::new(Store::new(connection.unwrap()), Window::parse("14d").unwrap()))
    }

    #[tokio::test]
    async fn feed_yields_while_it_reads_a_long_piece() {
        let expired = "{\"user_id\":\"u1\",\"segment\":\"sports\",\"seen_at\":1}\n";
        // The first line of a pair has an odd number always.
        for line in [expired, &format!("{expired}\n"), " \n", "\n"] {
            let piece = line.repeat(4_000_000 / line.len());
            let (mut ingest, polls) = (ingest(), Cell::new(0));
            let others = async {
                loop {
                    polls.set(polls.get() + 1);
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                fed = ingest.feed(piece.as_bytes(), NOW) => assert!(fed.is_ok()),
                () = others => {}
            }
            assert!(polls.get() >= 3, "{line:?}: others were polled {} times", polls.get());
        }
    }

    #[tokio::test]
    async fn a_report_counts_the_empty_lines_that_a_batch_ends_with() {
        for body in ["\n\r\n\n", " \n\n\n", "\n\n \n"] {
            let mut ingest = ingest();
            assert_eq!(ingest.feed(body.as_bytes(), NOW).await, Ok(3));
            assert_eq!(ingest.finish().await.0.done_through_line, 3);
        }
    }

    #[tokio::test]
    async fn feed_ends_after_too_many_rejected_lines_and_reports_them() {
        let mut ingest = ingest();
        let fed = ingest.feed("x\n".repeat(3_000_000).as_bytes(), NOW).await;
        assert_eq!(fed, Err(Aborted::Rejections));
        let (report, failure) = ingest.finish().await;
        assert_eq!((report.rejected, report.done_through_line, report.errors.len()), (10_000, 10_000, 100));
        assert_eq!(failure, None);
    }
}
