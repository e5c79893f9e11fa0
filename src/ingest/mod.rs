//! Ingests many visits: parses lines, collects the visits in chunks, and writes chunks while it parses the next lines.
//!
//! Memory is bounded, whatever the number of lines: one line, the chunk that is being filled, and a few chunks in
//! flight. Nothing here depends on HTTP or reads a clock.

mod chunk;
mod lines;
mod origins;
mod outcome;
mod pace;
mod rejections;
mod report;

use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use self::chunk::{Chunk, ChunkResult};
pub(crate) use self::lines::Lines;
pub(crate) use self::origins::Origins;
pub use self::outcome::Aborted;
use self::outcome::IngestOutcome;
use self::pace::Pace;
use self::rejections::Rejections;
pub use self::report::{LineError, Report};
use crate::auth::KeyUsage;
use crate::domain::Timestamp;
use crate::estimator::Estimator;
use crate::store;
use crate::telemetry::TRACED;

/// Ingests the visits of one batch. Applies backpressure if Redis is slower than the input.
#[derive(Debug)]
pub struct Ingest {
    estimator: Estimator,
    lines: Lines,
    /// The chunk that is being filled.
    chunk: Chunk,
    /// In the order of their lines.
    in_flight: VecDeque<JoinHandle<ChunkResult>>,
    outcome: IngestOutcome,
    pace: Pace,
    /// The counters of the caller's key.
    usage: Option<Arc<KeyUsage>>,
}

impl Ingest {
    /// The longest line, in bytes.
    pub const MAX_LINE_BYTES: usize = Chunk::MAX_LINE_BYTES;
    /// How many consecutive rejected lines abort a batch.
    pub const MAX_REJECTED_IN_A_ROW: u64 = Rejections::MAX_IN_A_ROW;
    /// The lines of a block. A batch is aborted if most lines of a block are rejected.
    pub const REJECTION_BLOCK: u64 = Rejections::BLOCK;
    /// Chunks of one batch in flight. Two would keep Redis busy if replies took no time.
    const MAX_CHUNKS_IN_FLIGHT: usize = 4;

    /// Starts a batch.
    #[must_use]
    pub fn new(estimator: Estimator) -> Self {
        Self {
            estimator,
            lines: Lines::new(Self::MAX_LINE_BYTES),
            chunk: Chunk::default(),
            in_flight: VecDeque::new(),
            outcome: IngestOutcome::default(),
            pace: Pace::start(),
            usage: None,
        }
    }

    /// Only validates the batch if `is_dry_run`: writes nothing, and reports the valid visits as accepted. The metrics of
    /// visits don't change.
    #[must_use]
    pub fn with_dry_run(mut self, is_dry_run: bool) -> Self {
        self.chunk.is_dry_run = is_dry_run;
        self.outcome.report.dry_run = is_dry_run;
        self
    }

    /// Adds the accepted visits to the counters of a key.
    #[must_use]
    pub fn with_usage(mut self, usage: Option<Arc<KeyUsage>>) -> Self {
        self.usage = usage;
        self
    }

    /// Ingests the lines that `piece` of a stream completes, each with visits in JSON that arrive at `now`. Reports
    /// invalid lines and continues. Skips blank lines. Returns the number of lines.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed, or too many lines were rejected.
    pub async fn feed(&mut self, mut piece: &[u8], now: Timestamp) -> Result<u64, Aborted> {
        const MAX_EMPTY_LINES: usize = 1_024;
        let before = self.lines.count();
        self.pace = Pace::start();
        loop {
            // Empty lines have a loop of their own: a body may have millions, and other lines take a hundred times as
            // long.
            let empty = self.lines.skip_empty(&mut piece, MAX_EMPTY_LINES);
            self.chunk.last_line = self.lines.count();
            let mut parsed = Pace::PARSED_PER_CLOCK_READ;
            if empty < MAX_EMPTY_LINES {
                let Some(line) = self.lines.next(&mut piece) else { break };
                let report = &mut self.outcome.report;
                let kind = self.chunk.add_line(&self.estimator, report, line.number, line.text, now);
                self.outcome.count_line(kind)?;
                self.write_if_full().await?;
                parsed = kind.visits().max(1);
            }
            if self.pace.is_over(parsed) {
                tokio::task::yield_now().await;
            }
        }
        Ok(self.lines.count() - before)
    }

    /// Ingests the visits of one object in JSON, which is reported as line `number`.
    ///
    /// # Errors
    ///
    /// [`Aborted`] if Redis failed.
    pub async fn feed_object(&mut self, number: u64, json: &[u8], now: Timestamp) -> Result<(), Aborted> {
        let json = (json.len() <= Self::MAX_LINE_BYTES).then_some(json);
        let kind = self.chunk.add_line(&self.estimator, &mut self.outcome.report, number, json, now);
        self.write_if_full().await?;
        if self.pace.is_over(kind.visits().max(1)) {
            tokio::task::yield_now().await;
        }
        Ok(())
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
        self.outcome.check_rejections()
    }

    async fn await_oldest(&mut self) -> Result<(), Aborted> {
        let Some(oldest) = self.in_flight.front_mut() else { return std::future::pending().await };
        let result = oldest.await;
        self.in_flight.pop_front();
        self.outcome.add_chunk(result.ok())
    }

    /// Ingests the last line of the stream, if it has no line end. [`Self::finish`] writes it.
    pub fn end(&mut self, now: Timestamp) {
        if let Some(line) = self.lines.last() {
            self.chunk.add_line(&self.estimator, &mut self.outcome.report, line.number, line.text, now);
        }
    }

    /// Writes the rest unless Redis failed, and waits for all chunks in flight. Returns the report, and the error for
    /// which visits were not written.
    pub async fn finish(mut self) -> (Report, Option<store::Error>) {
        if !self.outcome.is_over() {
            // A failure is kept in the outcome, here and below.
            let _ = self.write().await;
        }
        // Visits of a chunk that was never sent.
        if let Some(error) = &self.outcome.failure {
            self.estimator.metrics().visits.failed(error.kind(), self.chunk.origins.len() as u64);
        }
        while !self.in_flight.is_empty() {
            let _ = self.await_oldest().await;
        }
        // Lines after the last visit are done when all visits are.
        if self.outcome.failure.is_none() {
            self.outcome.report.done_through_line = self.chunk.last_line;
        }
        self.outcome.finish()
    }

    async fn write_if_full(&mut self) -> Result<(), Aborted> {
        if self.chunk.is_full() { self.write().await } else { Ok(()) }
    }

    /// Starts to write the chunk, if it has visits. Waits if too many chunks are in flight.
    async fn write(&mut self) -> Result<(), Aborted> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() >= Self::MAX_CHUNKS_IN_FLIGHT {
            self.await_oldest().await?;
        }
        let permit = self.estimator.acquire_bulk_permit().await.map_err(|error| self.outcome.fail(error))?;
        let chunk = self.chunk.take();
        let span = tracing::info_span!(target: TRACED, "write chunk", visits = chunk.origins.len());
        let (estimator, usage) = (self.estimator.clone(), self.usage.clone());
        // The task updates the metrics itself, since the sender may disconnect.
        let writing = async move { chunk.write(permit, estimator.metrics(), usage.as_deref()).await };
        self.in_flight.push_back(tokio::spawn(writing.instrument(span)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::chunk::LineKind;
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
    async fn a_chunk_exceeds_its_size_by_less_than_a_list() {
        let mut ingest = ingest();
        let line = format!("{{\"user_id\":\"u1\",\"segments\":[\"s\"{}]}}", ",\"s\"".repeat(99));
        for number in 1.. {
            let Ingest { estimator, chunk, outcome, .. } = &mut ingest;
            let kind = chunk.add_line(estimator, &mut outcome.report, number, Some(line.as_bytes()), NOW);
            assert_eq!(kind, LineKind::Visits(100));
            if ingest.chunk.is_full() {
                break;
            }
        }
        assert_eq!(ingest.chunk.origins.len(), 8_200);
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
