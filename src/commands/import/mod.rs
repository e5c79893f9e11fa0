//! `segment-estimator import`: imports visits from a file into Redis or a running service.
//!
//! A thread reads and parses the input into chunks. A few chunks are in flight at a time, and complete in the order of
//! their lines. A chunk is kept until it is acknowledged, and sent again after a failure, since writing is idempotent.
//! ([`Ingest`](crate::ingest::Ingest) is for senders that retry: it keeps as little as possible.) The progress is saved
//! regularly, so that another run can continue.

mod chunk;
mod command;
mod csv;
mod delivery;
mod error;
mod format;
mod reader;
mod rejects;
mod report;
mod run;
mod service;
mod source;
mod state;
mod target;
mod witnesses;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(super) use self::command::ImportCommand;
pub use self::csv::{ColumnMapping, CsvFormat};
pub use self::error::ImportError;
pub use self::format::Format;
use self::reader::ReaderEvent;
use self::rejects::Rejects;
use self::run::{Delivery, Run, StateFile};
pub use self::service::Service;
use self::source::Source;
use self::state::{Destination, LoadError, State, with_suffix};
use self::target::Target;
use super::progress::{Progress, Unit};
use crate::domain::Window;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;

/// The parameters of an import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The input. `-` is standard input.
    pub file: PathBuf,
    /// The format of the input.
    pub format: Format,
    /// The file for the errors of rejected lines.
    pub errors: Option<PathBuf>,
    /// The file for the progress. By default it is beside the input.
    pub state: Option<PathBuf>,
    /// Whether to continue an interrupted import.
    pub resume: bool,
}

impl Import {
    /// Imports into Redis.
    ///
    /// # Errors
    ///
    /// An [`ImportError`], also if lines were rejected.
    pub async fn to_redis(
        &self,
        estimator: Estimator,
        address: &str,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<(), ImportError> {
        let destination = Destination {
            address: address.to_owned(),
            key_prefix: Some(estimator.key_prefix().to_owned()),
            window: Some(estimator.window()),
        };
        self.run(Target::Redis(estimator), destination, clock, stop).await
    }

    /// Imports into a service.
    ///
    /// # Errors
    ///
    /// As [`Self::to_redis`].
    pub async fn to_service(&self, service: Service, stop: &CancellationToken) -> Result<(), ImportError> {
        let destination = Destination { address: service.to_string(), key_prefix: None, window: None };
        self.run(Target::Service(service), destination, &Clock::system(), stop).await
    }

    /// Validates the visits, of which those outside `window` have expired. Writes nothing but the errors: the progress
    /// has no file.
    ///
    /// # Errors
    ///
    /// As [`Self::to_redis`].
    pub async fn validate(&self, window: Window, stop: &CancellationToken) -> Result<(), ImportError> {
        let destination = Destination { address: String::new(), key_prefix: None, window: Some(window) };
        self.run(Target::Nowhere(window), destination, &Clock::system(), stop).await
    }

    async fn run(
        &self,
        target: Target,
        destination: Destination,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<(), ImportError> {
        let state_file = self.state_file(&target);
        self.check_files(state_file.as_ref())?;
        let source =
            Source::open(&self.file).map_err(|error| ImportError::unreadable(&self.file, error.to_string()))?;
        let progress = Arc::new(Progress::start(Unit::Bytes, source.bytes, "visits"));
        let state = self.initial_state(state_file.as_deref(), destination, &progress)?;
        target.check_reachable(clock).await.map_err(ImportError::Refused)?;
        let events = reader::read(source, self.format.clone(), target.encoding(clock), state.done, state.runs.clone());
        let mut events = events.map_err(|error| ImportError::unreadable(&self.file, error.to_string()))?;
        let start = self.skip_imported(state_file.as_deref(), &state, &target, &mut events, &progress, stop).await?;
        // Not earlier: until here it may be the wrong target, or have lost imported visits.
        target.prepare(clock, &progress).await.map_err(ImportError::Refused)?;
        let rejects = match &self.errors {
            Some(path) => {
                Rejects::file(path, state.errors_bytes).map_err(|error| ImportError::unwritable(path, &error))?
            }
            None => Rejects::stderr(),
        };
        // If the reader has ended, so has its channel.
        let _ = start.send(target.chunk_size());
        let delivery =
            Delivery { target, progress: Arc::clone(&progress), is_failing: Arc::default(), stop: stop.clone() };
        let state_file = StateFile { path: state_file, is_explicit: self.state.is_some() };
        let mut run = Run::new(delivery, state, state_file, rejects, clock.clone());
        let outcome = run.deliver_all(&mut events).await;
        progress.finish();
        run.finish(outcome, &self.file)
    }

    /// Refuses a file that would be both input and output, or two outputs.
    fn check_files(&self, state: Option<&PathBuf>) -> Result<(), ImportError> {
        // A file that doesn't exist yet has no other path.
        let resolve = |path: &PathBuf| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
        let errors = self.errors.as_ref();
        for (name, path, other) in
            [("--errors", errors, Some(&self.file)), ("--state", state, Some(&self.file)), ("--errors", errors, state)]
        {
            if let (Some(path), Some(other)) = (path, other)
                && resolve(path) == resolve(other)
            {
                let path = path.display();
                return Err(ImportError::File(format!("{name}: {path} is already in use; choose another file")));
            }
        }
        Ok(())
    }

    /// Returns the file for the progress. A dry run has none, and standard input has none by default.
    fn state_file(&self, target: &Target) -> Option<PathBuf> {
        match &self.state {
            _ if matches!(target, Target::Nowhere(_)) => None,
            Some(named) => Some(named.clone()),
            None if self.file == Path::new("-") => None,
            None => Some(with_suffix(&self.file, ".import")),
        }
    }

    /// Returns the state at the start: that of an earlier run, or a new one.
    fn initial_state(
        &self,
        path: Option<&Path>,
        destination: Destination,
        progress: &Progress,
    ) -> Result<State, ImportError> {
        let fresh = State::new(self.format.to_string(), destination);
        let Some(path) = path else {
            return if self.resume {
                Err(ImportError::File("--resume: an import of standard input needs --state".to_owned()))
            } else {
                Ok(fresh)
            };
        };
        let shown = path.display().to_string();
        let earlier = State::load(path);
        if !self.resume {
            // The file will be replaced, so it must be a state.
            match earlier {
                Ok(None) => {}
                Ok(Some(_)) | Err(LoadError::OtherVersion(_)) => progress.println(format_args!(
                    "{shown} is of an earlier run; without --resume the import starts at the beginning"
                )),
                Err(why) => {
                    let advice = "remove it, or choose another file with --state";
                    return Err(ImportError::File(format!("{why}; {advice}")));
                }
            }
            return Ok(fresh);
        }
        match earlier {
            Ok(None) => {
                progress.println(format_args!("--resume: there is no {shown}; the import starts at the beginning"));
                Ok(fresh)
            }
            Ok(Some(state)) if state.format != fresh.format => {
                let what = format!("a file that was read with other options ({})", state.format);
                Err(ImportError::StateMismatch { state: shown, what })
            }
            Ok(Some(state)) => match state.target.difference(&fresh.target) {
                Some(what) => Err(ImportError::StateMismatch { state: shown, what }),
                None => Ok(state),
            },
            Err(LoadError::OtherVersion(_)) => {
                Err(ImportError::StateMismatch { state: shown, what: "another version of this program".to_owned() })
            }
            Err(why) => Err(ImportError::File(format!("--resume: {why}"))),
        }
    }

    /// Waits until the reader has skipped the records of earlier runs, and checks that the target still has them.
    /// Returns the sender that lets the reader continue.
    async fn skip_imported(
        &self,
        state_file: Option<&Path>,
        state: &State,
        target: &Target,
        events: &mut mpsc::Receiver<ReaderEvent>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<oneshot::Sender<usize>, ImportError> {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return Err(ImportError::Stopped),
        };
        let mismatch = |what: &str| {
            let state = state_file.map(|path| path.display().to_string()).unwrap_or_default();
            ImportError::StateMismatch { state, what: what.to_owned() }
        };
        let start = match event {
            Some(ReaderEvent::Skipped(witnesses, start)) => {
                if !target.has_witnesses(&witnesses, state).await.map_err(ImportError::Refused)? {
                    return Err(mismatch("a data set that has lost imported visits"));
                }
                start
            }
            Some(ReaderEvent::Differs) => return Err(mismatch("another file")),
            Some(ReaderEvent::Failed(why)) => return Err(ImportError::unreadable(&self.file, why)),
            Some(ReaderEvent::Chunk(_) | ReaderEvent::End(_)) => {
                unreachable!("the reader skips the done records first")
            }
            None => {
                return Err(ImportError::unreadable(&self.file, "the reading thread ended unexpectedly".to_owned()));
            }
        };
        if state.done_through_line > 0 {
            progress.println(format_args!("resuming after line {}", state.done_through_line));
        }
        Ok(start)
    }
}
