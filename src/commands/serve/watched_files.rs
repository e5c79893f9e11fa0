//! Detects changes of files by their content.
//!
//! Times of files are not enough: Kubernetes replaces a symbolic link to the folder of all files, and a copy may keep the
//! time of its original. The files are small, so reading them costs microseconds.

use std::path::PathBuf;

use crate::small_file::{Contents, Fingerprint};

/// Files that are loaded together.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// The contents that were loaded last, successfully or not.
    loaded: Fingerprint,
    /// Other contents, found by the last check.
    found: Option<Fingerprint>,
}

/// The result of a check.
pub(super) enum Change {
    /// The contents are the loaded ones.
    None,
    /// The contents have changed since the last check, and may still be changing.
    Unsettled,
    /// The last two checks found the same new contents: these.
    Settled(Contents),
}

impl WatchedFiles {
    /// Reads the files at `paths`, and watches them from these contents on.
    pub(super) fn read(paths: Vec<PathBuf>) -> (Self, Contents) {
        let contents = Contents::read(&paths);
        (Self { paths, loaded: contents.fingerprint(), found: None }, contents)
    }

    /// Reads the files. The contents become the loaded ones when two checks in a row have found them, because a program
    /// may be writing a file: an emptied file of keys revokes all of them.
    pub(super) fn check(&mut self) -> Change {
        let contents = Contents::read(&self.paths);
        let now = contents.fingerprint();
        if now == self.loaded {
            self.found = None;
            return Change::None;
        }
        if self.found.as_ref() != Some(&now) {
            self.found = Some(now);
            return Change::Unsettled;
        }
        (self.loaded, self.found) = (now, None);
        Change::Settled(contents)
    }

    /// Reads the files. The contents become the loaded ones at once.
    pub(super) fn read_again(&mut self) -> Contents {
        let contents = Contents::read(&self.paths);
        (self.loaded, self.found) = (contents.fingerprint(), None);
        contents
    }
}
