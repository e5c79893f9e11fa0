//! What the private Redis says in its own log, `redis.log`, of a start.
//!
//! Its words have been the same since Redis 7.0, in Valkey too; Redis 6.2 leaves the file's name out. Where they come to
//! differ, nothing is found, and nothing is said.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::EmbeddedError;

/// Where Redis keeps the parts of its append-only file since 7.0, and what lists them.
pub(super) const PARTS: &str = "appendonlydir";
const MANIFEST: &str = "appendonly.aof.manifest";
/// The append-only file of Redis 6.2.
const SINGLE_FILE: &str = "appendonly.aof";

/// A start of Redis in a folder, by what it adds to its log.
#[derive(Debug)]
pub(super) struct StartLog {
    dir: PathBuf,
    /// How long the log was before, in bytes.
    begins_at: u64,
    /// How long the append-only files were before, in bytes.
    sizes: HashMap<PathBuf, u64>,
}

/// The end of an append-only file that Redis has cut off, since it was no whole command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    /// The file.
    pub(super) file: PathBuf,
    /// What is left of it, in bytes.
    pub(super) kept_bytes: u64,
    /// What is gone, in bytes, if that is known.
    pub(super) cut_off_bytes: Option<u64>,
}

impl StartLog {
    /// What the log is called.
    pub(super) const NAME: &str = "redis.log";
    /// How much of the log's end is read for its last lines.
    const TAIL: u64 = 8 * 1024;

    /// A start in `dir` that is about to begin.
    pub(super) fn begin(dir: &Path) -> Self {
        let begins_at = std::fs::metadata(dir.join(Self::NAME)).map_or(0, |log| log.len());
        let parts = std::fs::read_dir(dir.join(PARTS)).into_iter().flatten().flatten().map(|entry| entry.path());
        let files = parts.chain([dir.join(SINGLE_FILE)]);
        let sizes = files.filter_map(|file| Some((file.clone(), std::fs::metadata(file).ok()?.len())));
        Self { dir: dir.to_owned(), begins_at, sizes: sizes.collect() }
    }

    /// The log of the Redis in `dir`.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(Self::NAME)
    }

    /// What the start has added so far.
    fn added(&self) -> String {
        String::from_utf8_lossy(&self.read_added(u64::MAX).unwrap_or_default()).into_owned()
    }

    /// Reads what the start has added, or the last `limit` bytes of it.
    fn read_added(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut log = File::open(Self::path(&self.dir))?;
        let length = log.metadata()?.len();
        // A log that is shorter than it was has been put aside, and begun anew by this start.
        let begins_at = if length < self.begins_at { 0 } else { self.begins_at };
        log.seek(SeekFrom::Start(begins_at.max(length.saturating_sub(limit))))?;
        let mut added = Vec::new();
        log.read_to_end(&mut added)?;
        Ok(added)
    }

    /// The end that Redis has cut off its append-only file, if it says so.
    pub(super) fn torn_tail(&self) -> Option<TornTail> {
        let added = self.added();
        let (_, what) = added.lines().find_map(|line| line.split_once("Truncating the AOF "))?;
        let (name, offset) = what.split_once("at offset ")?;
        let kept_bytes = offset.split_whitespace().next()?.parse().ok()?;
        let file = self.file(name.trim());
        let cut_off_bytes = self.sizes.get(&file).and_then(|size| size.checked_sub(kept_bytes));
        Some(TornTail { file, kept_bytes, cut_off_bytes })
    }

    /// Why Redis ended after it had served: that its disk is full, or the last lines of its log.
    pub(super) fn end(&self) -> String {
        let tail = self.read_added(Self::TAIL).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        self.disk_full(&tail).map_or_else(|| last_lines(&tail), |error| error.to_string())
    }

    /// That Redis has no room to write, if so. Its log, which is on the same disk, may lack the line that says so.
    fn disk_full(&self, log: &str) -> Option<EmbeddedError> {
        let room = || rustix::fs::statvfs(&self.dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let is_full = log.contains("No space left on device") || room().is_ok_and(is_full);
        is_full.then(|| EmbeddedError::DiskFull { dir: self.dir.clone(), last_lines: last_lines(log) })
    }

    /// Why there is no Redis although it was started and has ended with `status`.
    pub(super) fn failure(&self, status: ExitStatus) -> EmbeddedError {
        let added = self.added();
        let damaged = added.lines().find_map(|line| line.split_once("Bad file format reading the append only file"));
        let Some((_, what)) = damaged else {
            let exited =
                || EmbeddedError::Exited { status, log: Self::path(&self.dir), last_lines: last_lines(&added) };
            return self.disk_full(&added).unwrap_or_else(exited);
        };
        let file = self.file(what.split_once(": ").map_or("", |(name, _)| name.trim()));
        let tool = if what.contains("valkey-check-aof") { "valkey-check-aof" } else { "redis-check-aof" };
        // Since 7.0 the tool wants the list of the parts.
        let manifest = self.dir.join(PARTS).join(MANIFEST);
        let fix = if manifest.exists() { manifest } else { file.clone() };
        EmbeddedError::Damaged { file, tool, fix }
    }

    /// The append-only file that Redis calls `name`, if it does.
    fn file(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.join(SINGLE_FILE) } else { self.dir.join(PARTS).join(name) }
    }
}

/// Whether a disk with so many bytes of room is full: what Redis could not write may have been longer than that.
fn is_full(room: u64) -> bool {
    room < 1024 * 1024
}

/// The end of a log in one line, for a message.
fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    lines.reverse();
    if lines.is_empty() { "(nothing)".to_owned() } else { lines.join(" | ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A start that adds `words` to a log which has a torn tail of an earlier start in it.
    fn torn_tail(words: &str) -> Option<(String, u64, Option<u64>)> {
        let dir = tempfile::tempdir().unwrap();
        let log = StartLog::path(dir.path());
        std::fs::create_dir(dir.path().join(PARTS)).unwrap();
        for file in [dir.path().join(SINGLE_FILE), dir.path().join(PARTS).join("appendonly.aof.1.incr.aof")] {
            std::fs::write(file, [0; 150]).unwrap();
        }
        let earlier =
            "1:M 24 Nov 2026 22:18:29.929 # !!! Truncating the AOF appendonly.aof.1.incr.aof at offset 7 !!!\n";
        std::fs::write(&log, earlier).unwrap();
        let start = StartLog::begin(dir.path());
        std::fs::write(&log, format!("{earlier}2:M 24 Nov 2026 22:18:30.602 # {words}\n2:M * Ready\n")).unwrap();
        let tail = start.torn_tail()?;
        let file = tail.file.strip_prefix(dir.path()).unwrap().display().to_string();
        Some((file, tail.kept_bytes, tail.cut_off_bytes))
    }

    #[rstest]
    #[case::redis_7_0(
        "!!! Truncating the AOF appendonly.aof.1.incr.aof at offset 127 !!!",
        Some(("appendonlydir/appendonly.aof.1.incr.aof", 127, Some(23)))
    )]
    #[case::redis_6_2("!!! Truncating the AOF at offset 127 !!!", Some(("appendonly.aof", 127, Some(23))))]
    #[case::another_file(
        "!!! Truncating the AOF appendonly.aof.9.incr.aof at offset 127 !!!",
        Some(("appendonlydir/appendonly.aof.9.incr.aof", 127, None))
    )]
    #[case::none("DB loaded from append only file: 0.000 seconds", None)]
    #[case::other_words("!!! Truncating the AOF somewhere !!!", None)]
    #[case::no_number("!!! Truncating the AOF at offset x !!!", None)]
    fn a_torn_tail_is_what_this_start_says_of_one(
        #[case] words: &str,
        #[case] expected: Option<(&str, u64, Option<u64>)>,
    ) {
        let expected = expected.map(|(file, kept, cut_off)| (file.to_owned(), kept, cut_off));
        assert_eq!(torn_tail(words), expected);
    }

    #[test]
    fn end_names_a_full_disk_or_the_last_lines_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let start = StartLog::begin(dir.path());
        assert_eq!(start.end(), "(nothing)");
        std::fs::write(
            StartLog::path(dir.path()),
            format!("{}1:M # Out of memory\n", "1:M * Background\n".repeat(9_999)),
        )
        .unwrap();
        assert_eq!(start.end(), "1:M * Background | 1:M * Background | 1:M # Out of memory");
        let log = "1:M # Error writing to the AOF file: No space left on device\n1:M # Can't recover\n";
        std::fs::write(StartLog::path(dir.path()), log).unwrap();
        let full =
            format!("the disk of {} is full, and the private Redis can't write; make room", dir.path().display());
        assert!(start.end().starts_with(&full) && start.end().ends_with(" | 1:M # Can't recover)"), "{}", start.end());
        assert!(is_full(1024 * 1024 - 1) && !is_full(1024 * 1024));
    }

    #[test]
    fn of_a_log_that_was_begun_anew_all_is_this_starts() {
        let dir = tempfile::tempdir().unwrap();
        let log = StartLog::path(dir.path());
        std::fs::write(&log, "1:M * Ready to accept connections\n".repeat(100)).unwrap();
        let start = StartLog::begin(dir.path());
        std::fs::write(&log, "2:M # !!! Truncating the AOF at offset 127 !!!\n").unwrap();
        assert_eq!(start.torn_tail().unwrap().kept_bytes, 127);
    }
}
