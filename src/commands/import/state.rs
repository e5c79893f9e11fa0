//! The progress of an import, in a file beside the input, so that another run can continue.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::domain::{Timestamp, Window};

/// The content of the file. The names of its members stay: `--resume` reads the file of an earlier version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// [`Self::VERSION`].
    version: u32,
    /// The options of the format. With other columns, the earlier runs would have read other visits.
    #[serde(rename = "form")]
    pub(super) format: String,
    pub(super) target: Destination,
    /// The runs so far, in order.
    pub(super) runs: Vec<PastRun>,
    /// The end of the completed records.
    pub(super) done: Position,
    /// The line on which the last of them begins, for the user.
    pub(super) done_through_line: u64,
    pub(super) counts: Counts,
    /// The length of the file of `--errors` at that point, in bytes.
    pub(super) errors_bytes: u64,
}

/// A run. Its visits without a time have the time of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PastRun {
    /// The records that this and earlier runs have completed.
    pub(super) records: u64,
    /// When the run began, in Unix milliseconds.
    pub(super) started_at: i64,
    /// When the run was last saved, in Unix milliseconds.
    pub(super) saved_at: i64,
}

/// The target, and the settings that decide which visits it gets. With other ones, the completed records would be
/// missing there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    /// The address of the settings, with the number of the database.
    pub(super) address: String,
    /// The prefix of the keys. A service has its own.
    pub(super) key_prefix: Option<String>,
    /// The window by which visits expire. A service has its own.
    pub(super) window: Option<Window>,
}

impl Destination {
    /// Returns how `self` differs from the destination `other` of the current run.
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
            (Some(before), Some(now)) if before != now => Some(format!(
                "an import with the window {before}, and the window is {now} now, by which other visits expire"
            )),
            _ => None,
        }
    }
}

/// The end of a record, identified by the text before it. The compression and the text after it make no difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The number of records: lines of NDJSON, or records of CSV including the header.
    pub(super) records: u64,
    /// XXH64 of the text up to there.
    pub(super) text_hash: u64,
}

/// The numbers of visits by outcome. An invalid record counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Acknowledged visits.
    pub(super) accepted: u64,
    /// Visits older than the window.
    pub(super) expired: u64,
    /// Records that are invalid, and visits that can't be written.
    pub(super) rejected: u64,
    /// Accepted visits without a time, which took the time of the import. Earlier versions don't save it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) undated: u64,
}

impl Counts {
    pub(super) fn sum(self) -> u64 {
        self.accepted + self.expired + self.rejected
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a state can't be loaded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{0} is not the state of an import")]
    Foreign(String),
    /// A state that an earlier or later version has written.
    #[error("{0} is of another version of this program")]
    OtherVersion(String),
}

impl State {
    /// Version 1, without a version number, counted lines that end in LF and had no hash of the text. The target of
    /// version 2 was only an address. Version 3 had only the time of the latest run.
    const VERSION: u32 = 4;

    /// Returns the state of a new import.
    pub(super) fn new(format: String, target: Destination) -> Self {
        Self {
            version: Self::VERSION,
            format,
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
        // Runs that completed no records are dropped.
        self.runs.dedup_by_key(|run| run.records);
        self.runs.push(PastRun { records: self.done.records, started_at: now, saved_at: now });
    }

    /// Updates the current run.
    pub(super) fn record_run(&mut self, now: Timestamp) {
        if let Some(run) = self.runs.last_mut() {
            (run.records, run.saved_at) = (self.done.records, now.as_millis());
        }
    }

    /// Loads the state from the file at `path`. Returns `None` if there is no such file.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, LoadError> {
        /// The members that the states of all versions have.
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
            Err(error) => return Err(LoadError::Unreadable(format!("failed to read {}: {error}", path.display()))),
        };
        match serde_json::from_slice(&text) {
            Ok(AnyVersion { version: Some(Self::VERSION), .. }) => {}
            Ok(_) => return Err(LoadError::OtherVersion(shown())),
            Err(_) => return Err(LoadError::Foreign(shown())),
        }
        serde_json::from_slice(&text).map(Some).map_err(|_| LoadError::Foreign(shown()))
    }

    /// Replaces the file at `path` atomically, also with respect to a crash.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let new = with_suffix(path, ".new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

/// Returns `path` with `suffix` appended to its name.
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
    fn load_returns_the_saved_state() {
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
    #[case::same(destination("h:6379", Some(""), Some("14d")), None)]
    #[case::address(destination("i:6379", Some(""), Some("14d")), Some("another target, h:6379"))]
    #[case::database(destination("h:6379 (database 3)", Some(""), Some("14d")), Some("another target, h:6379"))]
    #[case::key_prefix(
        destination("h:6379", Some("two:"), Some("14d")),
        Some("another target, with redis_key_prefix \"\"")
    )]
    #[case::longer_window(
        destination("h:6379", Some(""), Some("30d")),
        Some("an import with the window 14d, and the window is 30d now")
    )]
    #[case::shorter_window(
        destination("h:6379", Some(""), Some("1d")),
        Some("an import with the window 14d, and the window is 1d now")
    )]
    fn difference_names_the_first_one(#[case] other: Destination, #[case] expected: Option<&str>) {
        let difference = destination("h:6379", Some(""), Some("14d")).difference(&other);
        assert_eq!(difference.is_some(), expected.is_some(), "{difference:?}");
        assert!(difference.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }

    #[rstest]
    #[case::not_json("{", "is not the state of an import")]
    #[case::visit(r#"{"user_id":"u1","segment":"s1"}"#, "is not the state of an import")]
    #[case::unknown_member(
        r#"{"version":4,"target":"x","done_through_line":1,"x":1}"#,
        "is not the state of an import"
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
    #[case::later_version(
        r#"{"version":5,"target":"x","done_through_line":1}"#,
        "is of another version of this program"
    )]
    fn load_refuses_other_files(#[case] text: &str, #[case] expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("visits.import");
        fs::write(&path, text).unwrap();
        let error = State::load(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{} {expected}", path.display()));
    }
}
