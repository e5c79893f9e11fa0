//! How far an import has come, in a file beside what is imported, so that another run can go on from there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::Identity;

/// What is written into the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// What is imported.
    pub(super) source: Identity,
    /// Where to.
    pub(super) target: String,
    /// Every record that begins on a line up to this one is dealt with.
    pub(super) done_through_line: u64,
    pub(super) counts: Counts,
    /// How long the file with what was rejected is by then, in bytes.
    pub(super) errors_bytes: u64,
}

/// What became of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Visits that were acknowledged.
    pub(super) accepted: u64,
    /// Visits that lay outside the window already.
    pub(super) expired: u64,
    /// Records that are no visit, or can't be written.
    pub(super) rejected: u64,
}

impl Counts {
    pub(super) fn records(self) -> u64 {
        self.accepted + self.expired + self.rejected
    }
}

impl State {
    /// An import that has not begun.
    pub(super) fn new(source: Identity, target: String) -> Self {
        Self { source, target, done_through_line: 0, counts: Counts::default(), errors_bytes: 0 }
    }

    /// Reads the state from the file at `path`; none if there is no such file.
    ///
    /// # Errors
    ///
    /// Why it can't be used, in one line.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, String> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("can't read {}: {error}", path.display())),
        };
        let state = serde_json::from_slice(&text);
        state.map(Some).map_err(|_| format!("{} doesn't hold the state of an import", path.display()))
    }

    /// Replaces the file at `path`: a reader finds the one or the other, and so does whoever comes after a crash.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let new = with_suffix(path, ".new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

/// `path` with `suffix` behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::import::source::Source;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (input, path) = (folder.path().join("visits"), folder.path().join("visits.import"));
        fs::write(&input, "x").unwrap();
        assert_eq!(State::load(&path), Ok(None));
        let mut state = State::new(Source::open(Path::new(&input)).unwrap().identity, "127.0.0.1:6379".to_owned());
        state.done_through_line = 7;
        for _ in 0..2 {
            state.save(&path).unwrap();
            assert_eq!(State::load(&path).unwrap().as_ref(), Some(&state));
        }
        fs::write(&path, "{").unwrap();
        assert!(State::load(&path).unwrap_err().ends_with("doesn't hold the state of an import"));
    }
}
