//! The errors of rejected lines: written to a file, or the first few to standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::progress::Progress;
use crate::ingest::LineError;

/// The output for the errors of rejected lines.
pub(super) enum Rejects {
    /// A file of NDJSON, of this length.
    File { path: PathBuf, file: BufWriter<File>, bytes: u64 },
    /// Standard error, up to [`Self::MAX_SHOWN`].
    Stderr { count: usize },
}

/// A line of the file.
#[derive(Serialize)]
struct RejectLine<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    detail: &'a str,
}

impl Rejects {
    /// The limit on errors on standard error.
    const MAX_SHOWN: usize = 20;

    pub(super) fn stderr() -> Self {
        Self::Stderr { count: 0 }
    }

    /// Opens the file at `path` and truncates it to `bytes`. The rest is about lines that are read again.
    pub(super) fn file(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let bytes = bytes.min(file.metadata()?.len());
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self::File { path: path.to_owned(), file: BufWriter::new(file), bytes })
    }

    pub(super) fn write(&mut self, errors: &[LineError], progress: &Progress) -> io::Result<()> {
        match self {
            Self::File { file, bytes, .. } => {
                for LineError { line, field, detail } in errors {
                    let mut text = serde_json::to_vec(&RejectLine { line: *line, field: field.as_deref(), detail })?;
                    text.push(b'\n');
                    *bytes += text.len() as u64;
                    file.write_all(&text)?;
                }
            }
            Self::Stderr { count } => {
                for LineError { line, field, detail } in errors.iter().take(Self::MAX_SHOWN.saturating_sub(*count)) {
                    let field = field.as_ref().map(|field| format!("{field} ")).unwrap_or_default();
                    progress.println(format_args!("line {line}: {field}{detail}"));
                }
                if *count < Self::MAX_SHOWN && *count + errors.len() > Self::MAX_SHOWN {
                    progress.println(
                        "further rejected lines are not shown; use --errors FILE to write all of them to FILE",
                    );
                }
                *count += errors.len();
            }
        }
        Ok(())
    }

    /// Flushes the file and returns its length in bytes.
    pub(super) fn flush(&mut self) -> io::Result<u64> {
        match self {
            Self::File { file, bytes, .. } => file.flush().map(|()| *bytes),
            Self::Stderr { .. } => Ok(0),
        }
    }

    /// Returns where to find the errors, for the last line of the import.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::File { path, .. } => format!("see {}", path.display()),
            Self::Stderr { .. } => "use --errors FILE to write the reasons to FILE".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::progress::Unit;

    #[test]
    fn file_has_the_errors_of_a_repeated_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("errors");
        let progress = Progress::start(Unit::Bytes, None, "visits");
        let error = |line| [LineError::of_line(line, "is empty".to_owned())];
        let mut rejects = Rejects::file(&path, 0).unwrap();
        rejects.write(&error(1), &progress).unwrap();
        let bytes = rejects.flush().unwrap();
        rejects.write(&error(2), &progress).unwrap();
        rejects.flush().unwrap();

        let mut rejects = Rejects::file(&path, bytes).unwrap();
        rejects.write(&error(2), &progress).unwrap();
        assert_eq!(rejects.flush().unwrap(), 2 * bytes);
        let line = |line| format!("{{\"line\":{line},\"detail\":\"is empty\"}}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(1) + &line(2));
    }
}
