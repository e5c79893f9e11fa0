//! How far an import has come, in a file beside what is imported, so that another run can go on from there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::domain::{Timestamp, Window};

/// What is written into the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// [`Self::VERSION`].
    version: u32,
    /// How the text is read: with other columns, other visits would be left out.
    pub(super) form: String,
    /// Where to.
    pub(super) target: Destination,
    /// The runs that did it, in order.
    pub(super) runs: Vec<PastRun>,
    /// Everything up to here is dealt with.
    pub(super) done: Position,
    /// The line that the last of it begins on, for people.
    pub(super) done_through_line: u64,
    pub(super) counts: Counts,
    /// How long the file with what was rejected is by then, in bytes.
    pub(super) errors_bytes: u64,
}

/// A run, and when it was: a visit without a time was seen then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PastRun {
    /// How many records were done at its end, by this and earlier runs.
    pub(super) records: u64,
    /// When it began, in Unix milliseconds.
    pub(super) started_at: i64,
    /// When it was recorded last, in Unix milliseconds.
    pub(super) saved_at: i64,
}

/// Where visits go, and what decides which of them are left out there. With another one, what is done would be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    /// The address as it is set, with the number of the database.
    pub(super) address: String,
    /// What the keys begin with. A service has its own.
    pub(super) key_prefix: Option<String>,
    /// The window by which visits are left out as expired. A service has its own.
    pub(super) window: Option<Window>,
}

impl Destination {
    /// What differs in `other`, which was meant to be the same.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let Self { address, key_prefix, window } = self;
        if address != &other.address {
            return Some(format!("another target, {address}"));
        }
        if key_prefix != &other.key_prefix {
            let prefix = key_prefix.as_deref().unwrap_or_default();
            return Some(format!("another target, with redis_key_prefix \"{prefix}\""));
        }
        match (window, &other.window) {
            (Some(before), Some(now)) if before != now => {
                Some(format!("an import with the window {before}, which is {now} now: other visits would be left out"))
            }
            _ => None,
        }
    }
}

/// The end of a record, by what was read until then. The compression of the text makes no difference, nor does what follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// How many records: lines of NDJSON, or records of CSV with its header.
    pub(super) records: u64,
    /// XXH64 of the text up to the end of the last of them.
    pub(super) text_hash: u64,
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
    /// Accepted visits without a time, which took that of the import. A state without the number had none, or is of an earlier version.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) undated: u64,
}

impl Counts {
    pub(super) fn records(self) -> u64 {
        self.accepted + self.expired + self.rejected
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why there is no state to be had from a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{0} doesn't hold the state of an import")]
    Foreign(String),
    /// It is one of ours, and nobody knows any more, or yet, what it means.
    #[error("{0} is of another version of this program")]
    OtherVersion(String),
}

impl State {
    /// Version 1, which had none, told places by lines that end in LF. It has nothing that would tell a file by. Version 2 had the
    /// address alone for the target. Version 3 had the time of the latest run alone.
    const VERSION: u32 = 4;

    /// An import that has not begun.
    pub(super) fn new(form: String, target: Destination) -> Self {
        Self {
            version: Self::VERSION,
            form,
            target,
            runs: Vec::new(),
            done: Position::default(),
            done_through_line: 0,
            counts: Counts::default(),
            errors_bytes: 0,
        }
    }

    /// Adds a run that begins at `now`.
    pub(super) fn begin_run(&mut self, now: Timestamp) {
        let now = now.as_millis();
        // One that did nothing has no records.
        self.runs.dedup_by_key(|run| run.records);
        self.runs.push(PastRun { records: self.done.records, started_at: now, saved_at: now });
    }

    /// Updates the run under way, which has come so far at `now`.
    pub(super) fn record_run(&mut self, now: Timestamp) {
        if let Some(run) = self.runs.last_mut() {
            (run.records, run.saved_at) = (self.done.records, now.as_millis());
        }
    }

    /// Reads the state from the file at `path`; none if there is no such file.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, LoadError> {
        /// What the states of all versions have.
        #[derive(Deserialize)]
        struct AnyVersion {
            version: Option<u32>,
            #[serde(rename = "target")]
            _target: IgnoredAny,
            #[serde(rename = "done_through_line")]
            _done_through_line: u64,
        }
        let shown = || path.display().to_string();
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoadError::Unreadable(format!("can't read {}: {error}", path.display()))),
        };
        match serde_json::from_slice(&text) {
            Ok(AnyVersion { version: Some(Self::VERSION), .. }) => {}
            Ok(_) => return Err(LoadError::OtherVersion(shown())),
            Err(_) => return Err(LoadError::Foreign(shown())),
        }
        serde_json::from_slice(&text).map(Some).map_err(|_| LoadError::Foreign(shown()))
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
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("visits.import");
        assert_eq!(State::load(&path), Ok(None));
        let mut state = State::new("ndjson".to_owned(), destination("127.0.0.1:6379", Some("prod:"), Some("1d")));
        state.begin_run(Timestamp::from_millis(1_000));
        (state.done, state.done_through_line) = (Position { records: 7, text_hash: u64::MAX }, 8);
        (state.counts.accepted, state.counts.undated) = (7, 3);
        state.record_run(Timestamp::from_millis(2_000));
        assert_eq!(state.runs, [PastRun { records: 7, started_at: 1_000, saved_at: 2_000 }]);
        for _ in 0..2 {
            state.save(&path).unwrap();
            assert_eq!(State::load(&path).unwrap().as_ref(), Some(&state));
        }
    }

    fn destination(address: &str, key_prefix: Option<&str>, window: Option<&str>) -> Destination {
        let (address, key_prefix) = (address.to_owned(), key_prefix.map(str::to_owned));
        Destination { address, key_prefix, window: window.map(|window| Window::parse(window).unwrap()) }
    }

    #[rstest]
    #[case::the_same(destination("h:6379", Some(""), Some("14d")), None)]
    #[case::another_address(destination("i:6379", Some(""), Some("14d")), Some("another target, h:6379"))]
    #[case::another_database(destination("h:6379 (database 3)", Some(""), Some("14d")), Some("another target, h:6379"))]
    #[case::another_prefix(
        destination("h:6379", Some("two:"), Some("14d")),
        Some("another target, with redis_key_prefix \"\"")
    )]
    #[case::a_longer_window(
        destination("h:6379", Some(""), Some("30d")),
        Some("an import with the window 14d, which is 30d now")
    )]
    #[case::a_shorter_window(
        destination("h:6379", Some(""), Some("1d")),
        Some("an import with the window 14d, which is 1d now")
    )]
    fn difference_is_named(#[case] other: Destination, #[case] expected: Option<&str>) {
        let difference = destination("h:6379", Some(""), Some("14d")).difference(&other);
        assert_eq!(difference.is_some(), expected.is_some(), "{difference:?}");
        assert!(difference.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }

    #[rstest]
    #[case::no_json("{", "doesn't hold the state of an import")]
    #[case::a_visit(r#"{"user_id":"u1","segment":"s1"}"#, "doesn't hold the state of an import")]
    #[case::another_member(
        r#"{"version":4,"target":"x","done_through_line":1,"x":1}"#,
        "doesn't hold the state of an import"
    )]
    #[case::version_1(
        r#"{"source":{"bytes":9,"head":1},"target":"x","done_through_line":1,"counts":{"accepted":1,"expired":0,"rejected":0},"errors_bytes":0}"#,
        "is of another version of this program"
    )]
    #[case::version_2(
        r#"{"version":2,"form":"ndjson","target":"x","done":{"records":1,"text_hash":1},"done_through_line":1,"counts":{"accepted":1,"expired":0,"rejected":0},"errors_bytes":0}"#,
        "is of another version of this program"
    )]
    #[case::version_3(
        r#"{"version":3,"form":"ndjson","target":{"address":"x","key_prefix":null,"window":null},"saved_at":1,"done":{"records":1,"text_hash":1},"done_through_line":1,"counts":{"accepted":1,"expired":0,"rejected":0},"errors_bytes":0}"#,
        "is of another version of this program"
    )]
    #[case::a_later_version(
        r#"{"version":5,"target":"x","done_through_line":1}"#,
        "is of another version of this program"
    )]
    fn what_is_something_else_is_refused(#[case] text: &str, #[case] expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("visits.import");
        fs::write(&path, text).unwrap();
        let error = State::load(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{} {expected}", path.display()));
    }
}
