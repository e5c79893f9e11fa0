//! Why an import failed.

use std::io;
use std::path::Path;

/// Why an import ended early or rejected lines, in one line for the user.
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
    /// The file, the way that it is read, or the target is another than it was.
    #[error("--resume: {state} is of {what}; without --resume the import starts at the beginning")]
    Another {
        /// The file with the state.
        state: String,
        /// What differs.
        what: String,
    },
    /// It was stopped before it began.
    #[error("stopped; nothing was imported")]
    Stopped,
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
    /// All was read, and some of it was rejected: it was no visit, or one to a segment too many.
    #[error("{rejected} {} rejected; {place}", if *rejected == 1 { "line was" } else { "lines were" })]
    Rejected {
        /// How many.
        rejected: u64,
        /// Where they are.
        place: String,
    },
}

impl ImportError {
    /// The error of a `file`, or of standard input, that can't be read for the reason `why`.
    pub(super) fn unreadable(file: &Path, why: String) -> Self {
        let file = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
        Self::Unreadable { file, why }
    }

    /// The error of a file at `path` that can't be written.
    pub(super) fn unwritable(path: &Path, error: &io::Error) -> Self {
        Self::File(format!("can't write {}: {error}", path.display()))
    }
}
