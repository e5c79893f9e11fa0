//! What the private Redis reports in its own log, `redis.log`, about one start.
//!
//! The wording has been stable since Redis 7.0, in Valkey too. Redis 6.2 leaves the file's name out. If the wording
//! changes, the log yields nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::EmbeddedError;

/// The folder of the append-only files since Redis 7.0, and the file in it that lists them.
pub(super) const APPEND_ONLY_DIR: &str = "appendonlydir";
const MANIFEST: &str = "appendonly.aof.manifest";
/// The append-only file of Redis 6.2.
const SINGLE_FILE: &str = "appendonly.aof";

/// The part of the log that one start of Redis has written.
#[derive(Debug)]
pub(super) struct StartLog {
    dir: PathBuf,
    /// The length of the log before the start, in bytes.
    offset: u64,
    /// The lengths of the append-only files before the start, in bytes.
    sizes: HashMap<PathBuf, u64>,
}

/// The truncation of an append-only file that ended within a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Truncation {
    pub(super) file: PathBuf,
    pub(super) kept_bytes: u64,
    /// `None` if the length before is unknown.
    pub(super) cut_off_bytes: Option<u64>,
}

impl StartLog {
    /// The name of the log file.
    pub(super) const NAME: &str = "redis.log";
    /// How much of the end of the log is read, in bytes. A start writes less.
    const MAX_TAIL: u64 = 64 * 1024;

    /// Returns the log of a start in `dir` that is about to begin.
    pub(super) fn begin(dir: &Path) -> Self {
        let offset = std::fs::metadata(dir.join(Self::NAME)).map_or(0, |log| log.len());
        let parts = std::fs::read_dir(dir.join(APPEND_ONLY_DIR)).into_iter().flatten().flatten();
        let files = parts.map(|entry| entry.path()).chain([dir.join(SINGLE_FILE)]);
        let sizes = files.filter_map(|file| Some((file.clone(), std::fs::metadata(file).ok()?.len())));
        Self { dir: dir.to_owned(), offset, sizes: sizes.collect() }
    }

    /// Returns the path of the log of the Redis in `dir`.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(Self::NAME)
    }

    /// Returns the truncation that the log reports, if it does.
    pub(super) fn truncation(&self) -> Option<Truncation> {
        let log = self.read();
        let (_, message) = log.lines().find_map(|line| line.split_once("Truncating the AOF "))?;
        let (name, offset) = message.split_once("at offset ")?;
        let kept_bytes = offset.split_whitespace().next()?.parse().ok()?;
        let file = self.append_only_file(name.trim());
        let cut_off_bytes = self.sizes.get(&file).and_then(|size| size.checked_sub(kept_bytes));
        Some(Truncation { file, kept_bytes, cut_off_bytes })
    }

    /// Returns why Redis exited after it had served: a full disk, or the last lines of the log.
    pub(super) fn exit_reason(&self) -> String {
        let log = self.read();
        self.disk_full(&log).map_or_else(|| last_lines(&log), |error| error.to_string())
    }

    /// Returns why Redis exited with `status` before it served.
    pub(super) fn start_error(&self, status: ExitStatus) -> EmbeddedError {
        let log = self.read();
        let damage = log.lines().find_map(|line| line.split_once("Bad file format reading the append only file"));
        let Some((_, message)) = damage else {
            let exited = || EmbeddedError::Exited { status, log: Self::path(&self.dir), last_lines: last_lines(&log) };
            return self.disk_full(&log).unwrap_or_else(exited);
        };
        let file = self.append_only_file(message.split_once(": ").map_or("", |(name, _)| name.trim()));
        let tool = if message.contains("valkey-check-aof") { "valkey-check-aof" } else { "redis-check-aof" };
        // Since 7.0 the tool takes the manifest. That of Valkey 9.1 doesn't know the base file of its own server, and
        // repairs only a single file.
        let manifest = self.dir.join(APPEND_ONLY_DIR).join(MANIFEST);
        let takes_manifest = tool == "redis-check-aof" && manifest.exists();
        let fix = if takes_manifest { manifest } else { file.clone() };
        EmbeddedError::Damaged { file, tool, fix }
    }

    /// Reads what the start has written so far, up to [`Self::MAX_TAIL`].
    fn read(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(Self::path(&self.dir))?;
            let length = file.metadata()?.len();
            // A log that has become shorter was rotated: all of it is from this start.
            let offset = if length < self.offset { 0 } else { self.offset };
            file.seek(SeekFrom::Start(offset.max(length.saturating_sub(Self::MAX_TAIL))))?;
            let mut log = Vec::new();
            file.read_to_end(&mut log)?;
            Ok(log)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Returns an error if the disk is full. The log is on the same disk, so the line that reports it may be missing.
    fn disk_full(&self, log: &str) -> Option<EmbeddedError> {
        let room = || rustix::fs::statvfs(&self.dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let is_full = log.contains("No space left on device") || room().is_ok_and(is_full);
        is_full.then(|| EmbeddedError::DiskFull { dir: self.dir.clone(), last_lines: last_lines(log) })
    }

    fn append_only_file(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.join(SINGLE_FILE) } else { self.dir.join(APPEND_ONLY_DIR).join(name) }
    }
}

/// Returns whether a disk with so many bytes of room is full. A write fails if it is longer than the room.
fn is_full(room: u64) -> bool {
    room < 1024 * 1024
}

/// Returns the end of a log in one line.
fn last_lines(log: &str) -> String {
    let mut lines: Vec<&str> = log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    lines.reverse();
    if lines.is_empty() { "(nothing)".to_owned() } else { lines.join(" | ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Returns the truncation that a start finds after writing `message`. The log has one of an earlier start as well.
    fn truncation(message: &str) -> Option<(String, u64, Option<u64>)> {
        let dir = tempfile::tempdir().unwrap();
        let log = StartLog::path(dir.path());
        std::fs::create_dir(dir.path().join(APPEND_ONLY_DIR)).unwrap();
        for file in [dir.path().join(SINGLE_FILE), dir.path().join(APPEND_ONLY_DIR).join("appendonly.aof.1.incr.aof")] {
            std::fs::write(file, [0; 150]).unwrap();
        }
        let earlier =
            "1:M 24 Nov 2026 22:18:29.929 # !!! Truncating the AOF appendonly.aof.1.incr.aof at offset 7 !!!\n";
        std::fs::write(&log, earlier).unwrap();
        let start = StartLog::begin(dir.path());
        std::fs::write(&log, format!("{earlier}2:M 24 Nov 2026 22:18:30.602 # {message}\n2:M * Ready\n")).unwrap();
        let Truncation { file, kept_bytes, cut_off_bytes } = start.truncation()?;
        let file = file.strip_prefix(dir.path()).unwrap().display().to_string();
        Some((file, kept_bytes, cut_off_bytes))
    }

    #[rstest]
    #[case::redis_7_0(
        "!!! Truncating the AOF appendonly.aof.1.incr.aof at offset 127 !!!",
        Some(("appendonlydir/appendonly.aof.1.incr.aof", 127, Some(23)))
    )]
    #[case::redis_6_2("!!! Truncating the AOF at offset 127 !!!", Some(("appendonly.aof", 127, Some(23))))]
    #[case::unknown_file(
        "!!! Truncating the AOF appendonly.aof.9.incr.aof at offset 127 !!!",
        Some(("appendonlydir/appendonly.aof.9.incr.aof", 127, None))
    )]
    #[case::none("DB loaded from append only file: 0.000 seconds", None)]
    #[case::no_offset("!!! Truncating the AOF somewhere !!!", None)]
    #[case::offset_is_no_number("!!! Truncating the AOF at offset x !!!", None)]
    fn truncation_is_the_one_that_this_start_reports(
        #[case] message: &str,
        #[case] expected: Option<(&str, u64, Option<u64>)>,
    ) {
        let expected = expected.map(|(file, kept, cut_off)| (file.to_owned(), kept, cut_off));
        assert_eq!(truncation(message), expected);
    }

    #[test]
    fn exit_reason_is_a_full_disk_or_the_last_lines_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let start = StartLog::begin(dir.path());
        assert_eq!(start.exit_reason(), "(nothing)");
        std::fs::write(
            StartLog::path(dir.path()),
            format!("{}1:M # Out of memory\n", "1:M * Background\n".repeat(9_999)),
        )
        .unwrap();
        assert_eq!(start.exit_reason(), "1:M * Background | 1:M * Background | 1:M # Out of memory");
        let log = "1:M # Error writing to the AOF file: No space left on device\n1:M # Can't recover\n";
        std::fs::write(StartLog::path(dir.path()), log).unwrap();
        let full =
            format!("the disk of {} is full, so the private Redis failed to write; free space", dir.path().display());
        assert!(
            start.exit_reason().starts_with(&full) && start.exit_reason().ends_with(" | 1:M # Can't recover)"),
            "{}",
            start.exit_reason()
        );
        assert!(is_full(1024 * 1024 - 1) && !is_full(1024 * 1024));
    }

    #[test]
    fn truncation_is_found_in_a_log_that_was_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let log = StartLog::path(dir.path());
        std::fs::write(&log, "1:M * Ready to accept connections\n".repeat(100)).unwrap();
        let start = StartLog::begin(dir.path());
        std::fs::write(&log, "2:M # !!! Truncating the AOF at offset 127 !!!\n").unwrap();
        assert_eq!(start.truncation().unwrap().kept_bytes, 127);
    }
}
