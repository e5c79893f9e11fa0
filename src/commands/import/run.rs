//! A run: chunks are taken and delivered, what became of them is settled, and all is put in order at the end.

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

use super::chunk::{Chunk, Read};
use super::delivery::{ChunkResult, Failure};
use super::error::ImportError;
use super::rejects::Rejects;
use super::state::{Counts, State};
use super::target::Target;
use crate::commands::backoff::Backoff;
use crate::commands::progress::Progress;
use crate::estimator::clock::Clock;

/// Why an import ended before its end.
pub(super) enum Interruption {
    /// Somebody wants it to.
    Stopped,
    /// The other side fails.
    Broken(String),
    /// The source can't be read on.
    Unreadable(String),
    /// A file of ours can't be written.
    Ours(ImportError),
}

/// Where the state is written.
pub(super) struct StateFile {
    /// Nowhere if there is none.
    pub(super) path: Option<PathBuf>,
    /// Whether somebody wants it there.
    pub(super) is_named: bool,
}

/// An import under way.
pub(super) struct Run {
    delivery: Delivery,
    state: State,
    state_file: StateFile,
    /// What earlier runs did.
    counts_before: Counts,
    bytes_read: u64,
    /// When the state was written last.
    saved: Option<Instant>,
    rejects: Rejects,
    clock: Clock,
    started: Instant,
}

impl Run {
    /// Chunks that are under way at once.
    const UNDER_WAY: usize = 4;
    /// How often the state is written.
    const SAVE_EVERY: Duration = Duration::from_secs(2);
    /// How often it is told how far the import is, at the least.
    const TICK: Duration = Duration::from_millis(500);

    /// An import of which earlier runs have done what `state` says.
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
            saved: None,
            rejects,
            clock,
            started: Instant::now(),
        }
    }

    /// Takes the chunks until there are no more, or something fails.
    pub(super) async fn carry_out(&mut self, chunks: &mut mpsc::Receiver<Read>) -> Result<(), Interruption> {
        let mut under_way: FuturesOrdered<JoinHandle<_>> = FuturesOrdered::new();
        let mut ending = None;
        let mut tick = tokio::time::interval(Self::TICK);
        let stop = self.delivery.stop.clone();
        loop {
            let wants_more = ending.is_none() && under_way.len() < Self::UNDER_WAY;
            tokio::select! {
                Some(settled) = under_way.next(), if !under_way.is_empty() => {
                    let (chunk, delivered) = settled.map_err(|_| Interruption::Broken("a delivery was broken off".to_owned()))?;
                    self.settle(chunk, delivered?)?;
                    // What has no end is not done: the file may grow. When all else is done, there will be no state anyhow.
                    if !(under_way.is_empty() && matches!(ending, Some(Ok(())))) {
                        self.save_now_and_then()?;
                    }
                }
                () = stop.cancelled(), if ending.is_none() => ending = Some(Err(Interruption::Stopped)),
                read = chunks.recv(), if wants_more => match read {
                    Some(Read::Chunk(chunk)) => under_way.push_back(tokio::spawn(self.delivery.clone().deliver(chunk))),
                    // Who writes into the pipe may have been stopped, too, in the middle of a line.
                    Some(Read::End(_)) if stop.is_cancelled() => ending = Some(Err(Interruption::Stopped)),
                    Some(Read::End(rest)) => {
                        under_way.extend(rest.map(|chunk| tokio::spawn(self.delivery.clone().deliver(chunk))));
                        ending = Some(Ok(()));
                    }
                    Some(Read::Failed(why)) => ending = Some(Err(Interruption::Unreadable(why))),
                    Some(Read::Resumed(..) | Read::Differs) => unreachable!("the reader says these before all else"),
                    None => ending = Some(Err(Interruption::Broken("reading was broken off".to_owned()))),
                },
                _ = tick.tick() => {}
            }
            self.tell();
            if under_way.is_empty()
                && let Some(ending) = ending.take()
            {
                return ending;
            }
        }
    }

    fn tell(&self) {
        let visits = self.state.counts.records() - self.counts_before.records();
        self.delivery.progress.update(self.bytes_read, visits);
    }

    fn settle(&mut self, chunk: Chunk, delivered: ChunkResult) -> Result<(), Interruption> {
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
            .take(&errors, &self.delivery.progress)
            .map_err(|error| Interruption::Ours(rejects_not_written(&error)))
    }

    fn save_now_and_then(&mut self) -> Result<(), Interruption> {
        if self.saved.is_none_or(|saved| saved.elapsed() >= Self::SAVE_EVERY) {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Interruption> {
        self.state.errors_bytes =
            self.rejects.flush().map_err(|error| Interruption::Ours(rejects_not_written(&error)))?;
        self.saved = Some(Instant::now());
        self.state.record_run(self.clock.now());
        let StateFile { path: Some(path), is_named } = &self.state_file else { return Ok(()) };
        match self.state.save(path) {
            Ok(()) => Ok(()),
            // The folder may be for reading alone, and the import is none the worse for it.
            Err(error) if !is_named => {
                let path = path.display();
                self.delivery.progress.println(format_args!(
                    "can't write {path}: {error}; if the import breaks off, it can't go on from there (--state names another file)"
                ));
                self.state_file.path = None;
                Ok(())
            }
            Err(error) => Err(Interruption::Ours(ImportError::unwritable(path, &error))),
        }
    }

    /// Puts everything in order, and says what became of all.
    pub(super) fn finish(mut self, outcome: Result<(), Interruption>, file: &Path) -> Result<(), ImportError> {
        let outcome = match outcome {
            Ok(()) => self.complete(),
            Err(interruption) => Err(self.broken_off(interruption, file)),
        };
        self.delivery.progress.println(self.summary());
        outcome?;
        match self.state.counts.rejected {
            0 => Ok(()),
            rejected => Err(ImportError::Rejected { rejected, place: self.rejects.place() }),
        }
    }

    fn complete(&mut self) -> Result<(), ImportError> {
        self.rejects.flush().map_err(|error| rejects_not_written(&error))?;
        if let Some(path) = &self.state_file.path {
            // It may never have been written.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    fn broken_off(&mut self, interruption: Interruption, file: &Path) -> ImportError {
        let line = self.state.done_through_line;
        if line > 0
            && let Err(Interruption::Ours(error)) = self.save()
        {
            return error;
        }
        let mut advice = if self.state_file.path.is_some() { "; go on with --resume" } else { "" };
        let why = match interruption {
            Interruption::Ours(error) => return error,
            Interruption::Unreadable(why) if line == 0 => return ImportError::unreadable(file, why),
            Interruption::Unreadable(why) => {
                if self.state_file.path.is_some() {
                    advice = "; go on with --resume when it can be read to its end";
                }
                ImportError::unreadable(file, why).to_string()
            }
            Interruption::Broken(why) => why,
            Interruption::Stopped => "stopped".to_owned(),
        };
        if line == 0 {
            return ImportError::Refused(why);
        }
        ImportError::BrokenOff { why, line, advice }
    }

    fn summary(&self) -> String {
        let Counts { accepted, expired, rejected, undated } = self.state.counts;
        let before = self.counts_before.records();
        let records = self.state.counts.records() - before;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = (records as f64 / seconds.max(0.001)) as u64;
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

/// What delivers chunks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) target: Target,
    pub(super) progress: Arc<Progress>,
    /// Whether it has been said that the other side fails.
    pub(super) is_failing: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
}

impl Delivery {
    /// Delivers `chunk`, as often as it takes and patience allows.
    async fn deliver(self, chunk: Chunk) -> (Chunk, Result<ChunkResult, Interruption>) {
        let mut backoff = Backoff::default();
        loop {
            let (why, pause) = match self.target.deliver(&chunk).await {
                Ok(delivered) => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        self.progress.println("it goes on");
                    }
                    return (chunk, Ok(delivered));
                }
                Err(Failure::Permanent(why)) => return (chunk, Err(Interruption::Broken(why))),
                Err(Failure::Transient { why, pause }) => (why, pause),
            };
            let Some(pause) = backoff.next_delay(pause, Instant::now()) else {
                let limit = Backoff::MAX_ELAPSED.as_secs();
                return (
                    chunk,
                    Err(Interruption::Broken(format!("given up after {limit} s of failures, the last of them: {why}"))),
                );
            };
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                self.progress.println(format_args!("{why}; trying again"));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return (chunk, Err(Interruption::Stopped)),
            }
        }
    }
}

fn rejects_not_written(error: &io::Error) -> ImportError {
    ImportError::File(format!("can't write the file of --errors: {error}"))
}
