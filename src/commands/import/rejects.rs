//! What is wrong with which line: in a file, or the first few on standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::progress::Progress;
use crate::ingest::LineError;

/// Takes what is wrong with lines.
pub(super) enum Rejects {
    /// Into this file, as NDJSON.
    File { path: PathBuf, file: BufWriter<File>, bytes: u64 },
    /// To standard error, as long as there are not too many.
    Shown { count: usize },
}

/// A line of the file.
#[derive(Serialize)]
struct Entry<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    detail: &'a str,
}

impl Rejects {
    /// How many are shown.
    const SHOWN: usize = 20;

    pub(super) fn shown() -> Self {
        Self::Shown { count: 0 }
    }

    /// The file at `path`, with the first `bytes` of what is in it: the rest belongs to lines that come again.
    pub(super) fn into_file(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let bytes = bytes.min(file.metadata()?.len());
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self::File { path: path.to_owned(), file: BufWriter::new(file), bytes })
    }

    pub(super) fn take(&mut self, errors: &[LineError], progress: &Progress) -> io::Result<()> {
        match self {
            Self::File { file, bytes, .. } => {
                for LineError { line, field, detail } in errors {
                    let mut text = serde_json::to_vec(&Entry { line: *line, field: field.as_deref(), detail })?;
                    text.push(b'\n');
                    *bytes += text.len() as u64;
                    file.write_all(&text)?;
                }
            }
            Self::Shown { count } => {
                for LineError { line, field, detail } in errors.iter().take(Self::SHOWN.saturating_sub(*count)) {
                    let field = field.as_ref().map(|field| format!("{field} ")).unwrap_or_default();
                    progress.println(format_args!("line {line}: {field}{detail}"));
                }
                if *count < Self::SHOWN && *count + errors.len() > Self::SHOWN {
                    progress.println("more lines are rejected; --errors FILE takes them all");
                }
                *count += errors.len();
            }
        }
        Ok(())
    }

    /// Sees that all is in the file, and gives its length in bytes.
    pub(super) fn flush(&mut self) -> io::Result<u64> {
        match self {
            Self::File { file, bytes, .. } => file.flush().map(|()| *bytes),
            Self::Shown { .. } => Ok(0),
        }
    }

    /// Where they are, for who looks for them.
    pub(super) fn place(&self) -> String {
        match self {
            Self::File { path, .. } => format!("{} says which lines, and why", path.display()),
            Self::Shown { .. } => "--errors FILE has all of them written into FILE, each with the reason".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::progress::Unit;

    #[test]
    fn what_comes_again_is_in_the_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("errors");
        let progress = Progress::start(Unit::Bytes, None, "visits");
        let error = |line| [LineError::of_line(line, "is empty".to_owned())];
        let mut rejects = Rejects::into_file(&path, 0).unwrap();
        rejects.take(&error(1), &progress).unwrap();
        let bytes = rejects.flush().unwrap();
        rejects.take(&error(2), &progress).unwrap();
        rejects.flush().unwrap();

        let mut rejects = Rejects::into_file(&path, bytes).unwrap();
        rejects.take(&error(2), &progress).unwrap();
        assert_eq!(rejects.flush().unwrap(), 2 * bytes);
        let line = |line| format!("{{\"line\":{line},\"detail\":\"is empty\"}}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(1) + &line(2));
    }
}
