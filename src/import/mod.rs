//! `segment-estimator import`: visits out of a file, into Redis or into a service.
//!
//! A thread reads, parses and makes chunks; a few chunks are under way at once; what became of them is settled in the order of
//! their lines. A chunk is kept until it is acknowledged, and goes again when the other side fails: to write twice changes
//! nothing. (So it doesn't go through [`Ingest`](crate::ingest::Ingest), which holds as little as it can and leaves repeating to
//! the sender.) Now and then the line up to which all is settled is written down, and another run may begin there.

mod chunk;
mod csv;
mod rejects;
mod run;
mod service;
mod source;
mod state;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::chunk::Form;
pub use self::csv::{ColumnOf, CsvForm};
use self::rejects::Rejects;
use self::run::{Delivery, Run, StateFile};
pub use self::service::Service;
use self::source::Source;
use self::state::{State, with_suffix};
use self::target::Target;
use crate::clock::Clock;
use crate::estimator::Estimator;
use crate::progress::{Measure, Progress};

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

/// Why an import ended early, or not all was taken in: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be read, from its beginning or on.
    #[error("{file}: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says, or what is wrong with what is in it.
        why: String,
    },
    /// Another file of ours can't be used.
    #[error("{0}")]
    File(String),
    /// The file or the target is another than it was.
    #[error("--resume: {state} is of {what}; without --resume the import starts anew")]
    Another {
        /// The file with the state.
        state: String,
        /// What differs.
        what: &'static str,
    },
    /// Nothing was begun: Redis, or the service, doesn't take visits.
    #[error("{0}")]
    Refused(String),
    /// It broke off.
    #[error("{why}; all up to line {line} is done{advice}")]
    BrokenOff {
        /// Why.
        why: String,
        /// The line.
        line: u64,
        /// How to go on.
        advice: &'static str,
    },
    /// All was read, and some of it was no visit.
    #[error("not every line is a visit: {rejected} rejected; {place}")]
    Rejected {
        /// How many.
        rejected: u64,
        /// Where they are.
        place: String,
    },
}

impl Import {
    /// Imports into Redis.
    ///
    /// # Errors
    ///
    /// An [`ImportError`], also when all was read and some of it was rejected.
    pub async fn into_redis(
        &self,
        estimator: Estimator,
        to: &str,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<(), ImportError> {
        self.run(Target::Redis(estimator), to, clock, stop).await
    }

    /// Imports into a service.
    ///
    /// # Errors
    ///
    /// As [`Self::into_redis`].
    pub async fn into_service(&self, service: Service, stop: &CancellationToken) -> Result<(), ImportError> {
        let to = service.to_string();
        self.run(Target::Service(service), &to, &Clock::system(), stop).await
    }

    async fn run(&self, target: Target, to: &str, clock: &Clock, stop: &CancellationToken) -> Result<(), ImportError> {
        self.check_files()?;
        let source = Source::open(&self.file).map_err(|error| self.unreadable(error.to_string()))?;
        target.greet(clock).await.map_err(ImportError::Refused)?;
        let progress = Arc::new(Progress::start(Measure::Bytes, source.identity.bytes, "visits"));
        let state = self.first_state(&source, to, &progress)?;
        let rejects = match &self.errors {
            Some(path) => Rejects::into_file(path, state.errors_bytes).map_err(|error| cant_write(path, &error))?,
            None => Rejects::shown(),
        };
        let purpose = target.purpose(clock);
        let chunks = chunk::read(source, self.form.clone(), purpose, target.chunk_size(), state.done_through_line);
        let mut chunks = chunks.map_err(|error| self.unreadable(error.to_string()))?;
        let delivery =
            Delivery { target, progress: Arc::clone(&progress), is_failing: Arc::default(), stop: stop.clone() };
        let state_file = StateFile { path: self.state_file(), is_named: self.state.is_some() };
        let mut run = Run::new(delivery, state, state_file, rejects);
        let outcome = run.carry_out(&mut chunks).await;
        progress.end();
        run.finish(outcome, self)
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

    fn unreadable(&self, why: String) -> ImportError {
        let file =
            if self.file == Path::new("-") { "standard input".to_owned() } else { self.file.display().to_string() };
        ImportError::Unreadable { file, why }
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
    fn first_state(&self, source: &Source, to: &str, progress: &Progress) -> Result<State, ImportError> {
        let fresh = State::new(source.identity.clone(), to.to_owned());
        let Some(path) = self.state_file() else {
            return if self.resume {
                Err(ImportError::File("--resume: of standard input, --state names the file to go on by".to_owned()))
            } else {
                Ok(fresh)
            };
        };
        let shown = path.display().to_string();
        if !self.resume {
            // It will be replaced, so it must be one of ours.
            let earlier = State::load(&path)
                .map_err(|why| ImportError::File(format!("{why}: remove it, or name another file with --state")))?;
            if earlier.is_some() {
                progress.note(format_args!("{shown} is of an earlier run; without --resume the import starts anew"));
            }
            return Ok(fresh);
        }
        match State::load(&path).map_err(|why| ImportError::File(format!("--resume: {why}")))? {
            None => {
                progress.note(format_args!("--resume: there is no {shown}; the import starts at the beginning"));
                Ok(fresh)
            }
            Some(state) if state.source != fresh.source => {
                Err(ImportError::Another { state: shown, what: "another file" })
            }
            Some(state) if state.target != fresh.target => {
                Err(ImportError::Another { state: shown, what: "another target" })
            }
            Some(state) => {
                progress.note(format_args!("going on after line {}", state.done_through_line));
                Ok(state)
            }
        }
    }
}

fn cant_write(path: &Path, error: &io::Error) -> ImportError {
    ImportError::File(format!("can't write {}: {error}", path.display()))
}
