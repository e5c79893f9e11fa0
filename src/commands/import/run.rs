//! One run of an import: delivers the chunks, records their results, saves the progress, and reports the outcome.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::chunk::Chunk;
use super::delivery::{DeliveryFailure, DeliveryResult};
use super::error::ImportError;
use super::reader::ReaderEvent;
use super::rejects::Rejects;
use super::state::{Counts, State};
use super::target::Target;
use crate::commands::backoff::Backoff;
use crate::commands::progress::Progress;
use crate::estimator::clock::Clock;

/// Why a run ended early.
pub(super) enum Interruption {
    /// By a signal.
    Stopped,
    /// The target or a task failed.
    Failed(String),
    /// The input can't be read further.
    Unreadable(String),
    /// A file of the import itself can't be written.
    OutputFailed(ImportError),
}

/// The file for the progress.
pub(super) struct StateFile {
    /// `None` if the progress isn't saved.
    pub(super) path: Option<PathBuf>,
    /// Whether the path was set with `--state`.
    pub(super) is_explicit: bool,
}

/// A run in progress.
pub(super) struct Run {
    delivery: Delivery,
    state: State,
    state_file: StateFile,
    /// The counts of earlier runs.
    counts_before: Counts,
    bytes_read: u64,
    /// When the state was last saved.
    saved_at: Option<Instant>,
    rejects: Rejects,
    clock: Clock,
    started: Instant,
}

impl Run {
    /// Chunks in flight at a time.
    const CONCURRENCY: usize = 4;
    const SAVE_INTERVAL: Duration = Duration::from_secs(2);
    const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

    /// Returns a run that continues from `state`.
    pub(super) fn new(
        delivery: Delivery,
        mut state: State,
        state_file: StateFile,
        rejects: Rejects,
        clock: Clock,
    ) -> Self {
        let counts_before = state.counts;
        state.begin_run(clock.now());
        Self {
            delivery,
            state,
            state_file,
            counts_before,
            bytes_read: 0,
            saved_at: None,
            rejects,
            clock,
            started: Instant::now(),
        }
    }

    /// Delivers the chunks of the reader until its end or a failure.
    pub(super) async fn deliver_all(&mut self, events: &mut mpsc::Receiver<ReaderEvent>) -> Result<(), Interruption> {
        let mut in_flight: FuturesOrdered<JoinHandle<_>> = FuturesOrdered::new();
        // The result of the run, once no more chunks are read.
        let mut result = None;
        let mut tick = tokio::time::interval(Self::PROGRESS_INTERVAL);
        let stop = self.delivery.stop.clone();
        loop {
            let wants_more = result.is_none() && in_flight.len() < Self::CONCURRENCY;
            tokio::select! {
                Some(joined) = in_flight.next(), if !in_flight.is_empty() => {
                    let (chunk, delivered) = joined.map_err(|_| Interruption::Failed("a delivery ended unexpectedly".to_owned()))?;
                    self.record(chunk, delivered?)?;
                    // The last chunk may hold a record without its line end, which isn't done. A completed run removes
                    // the state anyway.
                    if !(in_flight.is_empty() && matches!(result, Some(Ok(())))) {
                        self.save_if_due()?;
                    }
                }
                () = stop.cancelled(), if result.is_none() => result = Some(Err(Interruption::Stopped)),
                event = events.recv(), if wants_more => match event {
                    Some(ReaderEvent::Chunk(chunk)) => in_flight.push_back(tokio::spawn(self.delivery.clone().deliver(chunk))),
                    // The signal may have stopped the writer of a pipe as well, in the middle of a line.
                    Some(ReaderEvent::End(_)) if stop.is_cancelled() => result = Some(Err(Interruption::Stopped)),
                    Some(ReaderEvent::End(rest)) => {
                        in_flight.extend(rest.map(|chunk| tokio::spawn(self.delivery.clone().deliver(chunk))));
                        result = Some(Ok(()));
                    }
                    Some(ReaderEvent::Failed(why)) => result = Some(Err(Interruption::Unreadable(why))),
                    Some(ReaderEvent::Skipped(..) | ReaderEvent::Differs) => unreachable!("these events come first"),
                    None => result = Some(Err(Interruption::Failed("the reading thread ended unexpectedly".to_owned()))),
                },
                _ = tick.tick() => {}
            }
            self.update_progress();
            if in_flight.is_empty()
                && let Some(result) = result.take()
            {
                return result;
            }
        }
    }

    fn update_progress(&self) {
        let visits = self.state.counts.sum() - self.counts_before.sum();
        self.delivery.progress.update(self.bytes_read, visits);
    }

    /// Adds the result of a chunk to the state, and writes its errors.
    fn record(&mut self, chunk: Chunk, delivered: DeliveryResult) -> Result<(), Interruption> {
        let counts = &mut self.state.counts;
        counts.accepted += delivered.accepted;
        counts.undated += chunk.undated_without(&delivered.errors);
        counts.expired += chunk.expired + delivered.expired;
        counts.rejected += chunk.rejected + delivered.rejected;
        (self.state.done, self.state.done_through_line) = (chunk.end, chunk.last_line);
        self.bytes_read = chunk.bytes_read;
        let mut errors = chunk.errors;
        errors.extend(delivered.errors);
        errors.sort_by_key(|error| error.line);
        self.rejects
            .write(&errors, &self.delivery.progress)
            .map_err(|error| Interruption::OutputFailed(rejects_not_written(&error)))
    }

    fn save_if_due(&mut self) -> Result<(), Interruption> {
        if self.saved_at.is_none_or(|saved_at| saved_at.elapsed() >= Self::SAVE_INTERVAL) {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Interruption> {
        self.state.errors_bytes =
            self.rejects.flush().map_err(|error| Interruption::OutputFailed(rejects_not_written(&error)))?;
        self.saved_at = Some(Instant::now());
        self.state.record_run(self.clock.now());
        let StateFile { path: Some(path), is_explicit } = &self.state_file else { return Ok(()) };
        match self.state.save(path) {
            Ok(()) => Ok(()),
            // The folder of the input may be read-only, which doesn't stop the import.
            Err(error) if !is_explicit => {
                let path = path.display();
                self.delivery.progress.println(format_args!(
                    "failed to write {path}: {error}; this import can't be resumed if it is interrupted (choose another file with --state)"
                ));
                self.state_file.path = None;
                Ok(())
            }
            Err(error) => Err(Interruption::OutputFailed(ImportError::unwritable(path, &error))),
        }
    }

    /// Completes or saves the import, and prints the summary.
    pub(super) fn finish(mut self, outcome: Result<(), Interruption>, file: &Path) -> Result<(), ImportError> {
        let outcome = match outcome {
            Ok(()) => self.complete(),
            Err(interruption) => Err(self.interrupted(interruption, file)),
        };
        self.delivery.progress.println(self.summary());
        outcome?;
        match self.state.counts.rejected {
            0 => Ok(()),
            rejected => Err(ImportError::Rejected { rejected, hint: self.rejects.hint() }),
        }
    }

    fn complete(&mut self) -> Result<(), ImportError> {
        self.rejects.flush().map_err(|error| rejects_not_written(&error))?;
        if let Some(path) = &self.state_file.path {
            // A short import never saves its state.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Saves the progress, and returns the error of the interruption.
    fn interrupted(&mut self, interruption: Interruption, file: &Path) -> ImportError {
        let line = self.state.done_through_line;
        if line > 0
            && let Err(Interruption::OutputFailed(error)) = self.save()
        {
            return error;
        }
        let mut advice = if self.state_file.path.is_some() { "; continue with --resume" } else { "" };
        let why = match interruption {
            Interruption::OutputFailed(error) => return error,
            Interruption::Unreadable(why) if line == 0 => return ImportError::unreadable(file, why),
            Interruption::Unreadable(why) => {
                if self.state_file.path.is_some() {
                    advice = "; continue with --resume when the file is complete";
                }
                ImportError::unreadable(file, why).to_string()
            }
            Interruption::Failed(why) => why,
            Interruption::Stopped => "stopped".to_owned(),
        };
        if line == 0 {
            return ImportError::Refused(why);
        }
        ImportError::Interrupted { why, line, advice }
    }

    fn summary(&self) -> String {
        let Counts { accepted, expired, rejected, undated } = self.state.counts;
        let before = self.counts_before.sum();
        let visits = self.state.counts.sum() - before;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = (visits as f64 / seconds.max(0.001)) as u64;
        let earlier = if before > 0 { format!(" ({before} of these in an earlier run)") } else { String::new() };
        let undated = if undated > 0 {
            format!("; {undated} without seen_at took the time of the import")
        } else {
            String::new()
        };
        format!(
            "{accepted} accepted, {expired} expired, {rejected} rejected{earlier}{undated}; {seconds:.1} s, {rate} visits/s"
        )
    }
}

/// The delivery of chunks with retries. Cheap to clone.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) target: Target,
    pub(super) progress: Arc<Progress>,
    /// Whether a failure of the target was printed.
    pub(super) is_failing: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
}

impl Delivery {
    /// Delivers `chunk`. Retries transient failures with backoff.
    async fn deliver(self, chunk: Chunk) -> (Chunk, Result<DeliveryResult, Interruption>) {
        let mut backoff = Backoff::default();
        loop {
            let (why, retry_after) = match self.target.deliver(&chunk).await {
                Ok(delivered) => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        self.progress.println("recovered");
                    }
                    return (chunk, Ok(delivered));
                }
                Err(DeliveryFailure::Permanent(why)) => return (chunk, Err(Interruption::Failed(why))),
                Err(DeliveryFailure::Transient { why, retry_after }) => (why, retry_after),
            };
            let Some(delay) = backoff.next_delay(retry_after, Instant::now()) else {
                let seconds = Backoff::MAX_ELAPSED.as_secs();
                return (
                    chunk,
                    Err(Interruption::Failed(format!("gave up after {seconds} s of failures; the last one: {why}"))),
                );
            };
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                self.progress.println(format_args!("{why}; retrying"));
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return (chunk, Err(Interruption::Stopped)),
            }
        }
    }
}

fn rejects_not_written(error: &io::Error) -> ImportError {
    ImportError::File(format!("failed to write the file of --errors: {error}"))
}
