//! `segment-estimator import`: visits out of a file, into Redis or into a service.
//!
//! A thread reads, parses and makes chunks; a few chunks are under way at once; what became of them is settled in the order of
//! their lines. A chunk is kept until it is acknowledged, and goes again when the other side fails: to write twice changes
//! nothing. (So it doesn't go through [`Ingest`](crate::ingest::Ingest), which holds as little as it can and leaves repeating to
//! the sender.) Now and then the line up to which all is settled is written down, and another run may begin there.

mod chunk;
mod command;
mod csv;
mod delivery;
mod error;
mod rejects;
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

pub use self::chunk::Form;
use self::chunk::Read;
pub(super) use self::command::ImportCommand;
pub use self::csv::{ColumnOf, CsvForm};
pub use self::error::ImportError;
use self::rejects::Rejects;
use self::run::{Delivery, Run, StateFile};
pub use self::service::Service;
use self::source::Source;
use self::state::{Destination, LoadError, State, with_suffix};
use self::target::Target;
use super::progress::{Progress, Unit};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;

/// What to import, and how.
#[derive(Debug, Clone)]
pub struct Import {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// How its lines are to be read.
    pub form: Form,
    /// The file that takes what is wrong with which line.
    pub errors: Option<PathBuf>,
    /// The file that holds how far the import has come; beside the file that is imported, if none is named.
    pub state: Option<PathBuf>,
    /// Whether to go on where an earlier run was when it ended.
    pub resume: bool,
}

impl Import {
    /// Imports into Redis.
    ///
    /// # Errors
    ///
    /// An [`ImportError`], also when all was read and some of it was rejected.
    pub async fn to_redis(
        &self,
        estimator: Estimator,
        address: &str,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<(), ImportError> {
        let to = Destination {
            address: address.to_owned(),
            key_prefix: Some(estimator.key_prefix().to_owned()),
            window: Some(estimator.window()),
        };
        self.run(Target::Redis(estimator), to, clock, stop).await
    }

    /// Imports into a service.
    ///
    /// # Errors
    ///
    /// As [`Self::to_redis`].
    pub async fn to_service(&self, service: Service, stop: &CancellationToken) -> Result<(), ImportError> {
        let to = Destination { address: service.to_string(), key_prefix: None, window: None };
        self.run(Target::Service(service), to, &Clock::system(), stop).await
    }

    async fn run(
        &self,
        target: Target,
        to: Destination,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<(), ImportError> {
        self.check_files()?;
        let source =
            Source::open(&self.file).map_err(|error| ImportError::unreadable(&self.file, error.to_string()))?;
        let progress = Arc::new(Progress::start(Unit::Bytes, source.bytes, "visits"));
        let state = self.first_state(to, &progress)?;
        target.greet(clock).await.map_err(ImportError::Refused)?;
        let chunks = chunk::read(source, self.form.clone(), target.purpose(clock), state.done, state.runs.clone());
        let mut chunks = chunks.map_err(|error| ImportError::unreadable(&self.file, error.to_string()))?;
        let start = self.pass_over(&state, &target, &mut chunks, &progress, stop).await?;
        // Only now: it may be the wrong one, or have lost what was imported.
        target.prepare(clock, &progress).await.map_err(ImportError::Refused)?;
        let rejects = match &self.errors {
            Some(path) => {
                Rejects::into_file(path, state.errors_bytes).map_err(|error| ImportError::unwritable(path, &error))?
            }
            None => Rejects::shown(),
        };
        // If the reader is gone, the chunks end.
        let _ = start.send(target.chunk_size());
        let delivery =
            Delivery { target, progress: Arc::clone(&progress), is_failing: Arc::default(), stop: stop.clone() };
        let state_file = StateFile { path: self.state_file(), is_named: self.state.is_some() };
        let mut run = Run::new(delivery, state, state_file, rejects, clock.clone());
        let outcome = run.carry_out(&mut chunks).await;
        progress.finish();
        run.finish(outcome, &self.file)
    }

    /// Refuses a file that would be read and written, or written twice.
    fn check_files(&self) -> Result<(), ImportError> {
        // One that isn't there yet has no other name.
        let place = |path: &PathBuf| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
        let (state, errors) = (self.state_file(), self.errors.as_ref());
        for (name, path, other) in [
            ("--errors", errors, Some(&self.file)),
            ("--state", state.as_ref(), Some(&self.file)),
            ("--errors", errors, state.as_ref()),
        ] {
            if let (Some(path), Some(other)) = (path, other)
                && place(path) == place(other)
            {
                let path = path.display();
                return Err(ImportError::File(format!("{name}: {path} is used already: name a file of its own")));
            }
        }
        Ok(())
    }

    /// The file with the state. Of standard input there is none, unless one is named.
    fn state_file(&self) -> Option<PathBuf> {
        match &self.state {
            Some(named) => Some(named.clone()),
            None if self.file == Path::new("-") => None,
            None => Some(with_suffix(&self.file, ".import")),
        }
    }

    /// Where to begin.
    fn first_state(&self, to: Destination, progress: &Progress) -> Result<State, ImportError> {
        let fresh = State::new(self.form.to_string(), to);
        let Some(path) = self.state_file() else {
            return if self.resume {
                Err(ImportError::File("--resume: of standard input, --state names the file to go on by".to_owned()))
            } else {
                Ok(fresh)
            };
        };
        let shown = path.display().to_string();
        let earlier = State::load(&path);
        if !self.resume {
            // It will be replaced, so it must be one of ours.
            match earlier {
                Ok(None) => {}
                Ok(Some(_)) | Err(LoadError::OtherVersion(_)) => progress.println(format_args!(
                    "{shown} is of an earlier run; without --resume the import starts at the beginning"
                )),
                Err(why) => {
                    let advice = "remove it, or name another file with --state";
                    return Err(ImportError::File(format!("{why}: {advice}")));
                }
            }
            return Ok(fresh);
        }
        match earlier {
            Ok(None) => {
                progress.println(format_args!("--resume: there is no {shown}; the import starts at the beginning"));
                Ok(fresh)
            }
            Ok(Some(state)) if state.form != fresh.form => {
                let what = format!("a file that was read in another way ({})", state.form);
                Err(ImportError::Another { state: shown, what })
            }
            Ok(Some(state)) => match state.target.difference(&fresh.target) {
                Some(what) => Err(ImportError::Another { state: shown, what }),
                None => Ok(state),
            },
            Err(LoadError::OtherVersion(_)) => {
                Err(ImportError::Another { state: shown, what: "another version of this program".to_owned() })
            }
            Err(why) => Err(ImportError::File(format!("--resume: {why}"))),
        }
    }

    /// Waits until the reader has passed over what earlier runs have done, which must be how the source begins. Returns what lets it go on,
    /// by the size of a chunk.
    async fn pass_over(
        &self,
        state: &State,
        target: &Target,
        chunks: &mut mpsc::Receiver<Read>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<oneshot::Sender<usize>, ImportError> {
        let word = tokio::select! {
            word = chunks.recv() => word,
            () = stop.cancelled() => return Err(ImportError::Stopped),
        };
        let another = |what: &str| {
            let state = self.state_file().map(|path| path.display().to_string()).unwrap_or_default();
            ImportError::Another { state, what: what.to_owned() }
        };
        let start = match word {
            Some(Read::Resumed(witnesses, start)) => {
                let has_them = target.has(&witnesses, state).await.map_err(ImportError::Refused)?;
                if !has_them {
                    return Err(another("a data set that has lost what was imported"));
                }
                start
            }
            Some(Read::Differs) => return Err(another("another file")),
            Some(Read::Failed(why)) => return Err(ImportError::unreadable(&self.file, why)),
            Some(Read::Chunk(_) | Read::End(_)) => unreachable!("the reader says first whether it can go on"),
            None => return Err(ImportError::unreadable(&self.file, "reading was broken off".to_owned())),
        };
        if state.done_through_line > 0 {
            progress.println(format_args!("going on after line {}", state.done_through_line));
        }
        Ok(start)
    }
}
