//! Detects changes of files by their content.
//!
//! Times of files are not enough: Kubernetes replaces a symbolic link to the folder of all files, and a copy may keep the
//! time of its original. The files are small, so reading them costs microseconds.

use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};

use crate::small_file;

/// Files that are loaded together.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// The content that was loaded last, successfully or not.
    loaded: Fingerprint,
    /// Another content, found by the last check.
    found: Option<Fingerprint>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The content is the loaded one.
    None,
    /// The content has changed since the last check, and may still be changing.
    Unsettled,
    /// The last two checks found the same new content.
    Settled,
}

/// A digest of the content of all files. A file that can't be read counts by its error.
type Fingerprint = Vec<u8>;

impl WatchedFiles {
    /// Watches `paths` from their present content on. Call it before the content is loaded: a change during the load is
    /// then a change.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let loaded = fingerprint(&paths);
        Self { paths, loaded, found: None }
    }

    /// Reads the files. The content becomes the loaded one when two checks in a row have found it, because a program may
    /// be writing the file: an emptied file of keys revokes all of them.
    pub(super) fn check(&mut self) -> Change {
        let now = fingerprint(&self.paths);
        if now == self.loaded {
            self.found = None;
            return Change::None;
        }
        if self.found.as_ref() != Some(&now) {
            self.found = Some(now);
            return Change::Unsettled;
        }
        self.loaded = now;
        self.found = None;
        Change::Settled
    }

    /// Takes the present content as the loaded one.
    pub(super) fn mark_loaded(&mut self) {
        (self.loaded, self.found) = (fingerprint(&self.paths), None);
    }
}

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut digest = Context::new(&SHA256);
    for path in paths {
        let (tag, content) = match small_file::read(path) {
            Ok(content) => (b'+', content),
            Err(error) => (b'-', error.to_string().into_bytes()),
        };
        digest.update(&[tag]);
        digest.update(&content.len().to_le_bytes());
        digest.update(&content);
    }
    digest.finish().as_ref().to_vec()
}
