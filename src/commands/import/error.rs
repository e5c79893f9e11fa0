//! Why an import failed.

use std::io;
use std::path::Path;

/// Why an import ended early or rejected lines, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be read.
    #[error("{file}: {why}")]
    Unreadable { file: String, why: String },
    /// A file of the import itself can't be used.
    #[error("{0}")]
    File(String),
    /// The state belongs to an import of another file, with other options, or into another target.
    #[error("--resume: {state} is of {what}; without --resume the import starts at the beginning")]
    StateMismatch {
        /// The file with the state.
        state: String,
        /// The difference.
        what: String,
    },
    /// The import was stopped before it began.
    #[error("stopped; nothing was imported")]
    Stopped,
    /// Redis or the service refused the import before it began.
    #[error("{0}")]
    Refused(String),
    /// The import ended early.
    #[error("{why}; completed through line {line}{advice}")]
    Interrupted {
        why: String,
        /// The last completed line.
        line: u64,
        /// How to continue.
        advice: &'static str,
    },
    /// The import completed and rejected lines.
    #[error("{rejected} {} rejected; {hint}", if *rejected == 1 { "line was" } else { "lines were" })]
    Rejected {
        rejected: u64,
        /// Where to find the errors.
        hint: String,
    },
}

impl ImportError {
    /// Returns the error of a `file`, or of standard input, that can't be read.
    pub(super) fn unreadable(file: &Path, why: String) -> Self {
        let file = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
        Self::Unreadable { file, why }
    }

    /// Returns the error of a file at `path` that can't be written.
    pub(super) fn unwritable(path: &Path, error: &io::Error) -> Self {
        Self::File(format!("failed to write {}: {error}", path.display()))
    }
}
