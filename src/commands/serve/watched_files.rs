//! Detects changes of files by their content.
//!
//! Times of files are not enough: Kubernetes replaces a symbolic link to the folder of all files, and a copy may keep the
//! time of its original. The files are small, so reading them costs microseconds.

use std::path::PathBuf;

use crate::small_file::{Contents, Fingerprint};

/// The number of checks in a row that must find the same contents.
const CHECKS_UNTIL_SETTLED: u32 = 2;

/// The number of checks in a row that must find changed contents, if they differ each time.
const CHECKS_UNTIL_DUE: u32 = 3;

/// The number of checks in a row that must find drastic contents.
const CHECKS_UNTIL_DRASTIC: u32 = 3;

/// Files that are loaded together.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// The contents that were loaded last, successfully or not.
    loaded: Fingerprint,
    /// Other contents, found by the last check.
    found: Option<Found>,
}

/// Contents that are not loaded yet, each with the number of checks in a row that found such contents.
#[derive(Debug)]
struct Found {
    fingerprint: Fingerprint,
    /// Checks that found these contents.
    same: u32,
    /// Checks that found contents other than the loaded ones.
    changed: u32,
    /// Checks that found drastic contents.
    drastic: u32,
}

/// The result of a check.
pub(super) enum Change {
    /// The contents are the loaded ones.
    None,
    /// The contents have changed, and may still be changing.
    Unsettled,
    /// The contents are to be loaded: these.
    Due(Contents),
}

impl WatchedFiles {
    /// Reads the files at `paths`, and watches them from these contents on.
    pub(super) fn read(paths: Vec<PathBuf>) -> (Self, Contents) {
        let contents = Contents::read(&paths);
        (Self { paths, loaded: contents.fingerprint(), found: None }, contents)
    }

    /// Reads the files. New contents are due when two checks in a row have found them, because a program may be writing a
    /// file. Contents that differ at each check are due at the third, so that a revocation is never put off for good.
    /// Contents that are drastic according to `is_drastic` are due when three checks in a row have found such.
    pub(super) fn check(&mut self, is_drastic: impl Fn(&Contents) -> bool) -> Change {
        let contents = Contents::read(&self.paths);
        let fingerprint = contents.fingerprint();
        let before = self.found.take();
        if fingerprint == self.loaded {
            return Change::None;
        }
        let (same, changed, drastic) = before.map_or((0, 0, 0), |before| {
            (if before.fingerprint == fingerprint { before.same } else { 0 }, before.changed, before.drastic)
        });
        let is_drastic = is_drastic(&contents);
        let drastic = if is_drastic { drastic + 1 } else { 0 };
        let found = Found { fingerprint, same: same + 1, changed: changed + 1, drastic };
        let is_due = if is_drastic {
            found.drastic >= CHECKS_UNTIL_DRASTIC
        } else {
            found.same >= CHECKS_UNTIL_SETTLED || found.changed >= CHECKS_UNTIL_DUE
        };
        if !is_due {
            self.found = Some(found);
            return Change::Unsettled;
        }
        self.loaded = found.fingerprint;
        Change::Due(contents)
    }

    /// Reads the files. The contents become the loaded ones at once.
    pub(super) fn read_again(&mut self) -> Contents {
        let contents = Contents::read(&self.paths);
        (self.loaded, self.found) = (contents.fingerprint(), None);
        contents
    }
}
