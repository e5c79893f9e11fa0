//! Why there is no private Redis, in one line that says what to do.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why there is no private Redis.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Neither server is installed.
    #[error(
        "there is no redis-server or valkey-server on PATH: install one (Debian and Ubuntu: apt-get install \
         redis-server, macOS: brew install redis) or set redis_url (ESTIMATOR_REDIS_URL)"
    )]
    NotInstalled,
    /// The server lacks commands that we need.
    #[error("Redis {0} is too old: install 6.2 or later, or Valkey, or set redis_url (ESTIMATOR_REDIS_URL)")]
    TooOld(String),
    /// Another service runs on the folder.
    #[error("data_dir: {} is in use by another segment-estimator", .0.display())]
    InUse(PathBuf),
    /// The Redis of a service that ended has not finished yet.
    #[error("data_dir: the Redis of an earlier segment-estimator still runs in {}", .0.display())]
    StillRunning(PathBuf),
    /// The folder's path leaves no room for the socket's.
    #[error("data_dir: {} is too long a path for a Unix socket; use one of at most {max} bytes", .path.display())]
    PathTooLong {
        /// The folder.
        path: PathBuf,
        /// The longest path to it that would do.
        max: usize,
    },
    /// The folder can't be made or used.
    #[error("data_dir: can't use {}: {source}", .path.display())]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another user owns the folder, or could put something else in its place.
    #[error("data_dir: {} {why}", .path.display())]
    Untrusted {
        /// The folder, a folder above it, or a file in it.
        path: PathBuf,
        /// What is wrong with it, without its subject.
        why: String,
    },
    /// The server ended, and there is no room on its disk.
    #[error("the disk of {} is full, and the private Redis can't write; make room (its log ends with: {last_lines})", .dir.display())]
    DiskFull {
        /// Its folder.
        dir: PathBuf,
        /// The end of its log, in one line; on a full disk it may lack the last words.
        last_lines: String,
    },
    /// The server could not be run.
    #[error("can't run the private Redis: {0}")]
    Spawn(io::Error),
    /// The server ended before it answered.
    #[error("the private Redis didn't start ({status}); its log, {}, ends with: {last_lines}", .log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The end of that, in one line.
        last_lines: String,
    },
    /// The server can't read its append-only file.
    #[error(
        "the private Redis didn't start: {} is damaged, and not just cut off at its end; copy its folder, then run \
         `{tool} --fix '{}'`, which asks before it cuts off the damage and all that stands behind it, or restore a backup",
        .file.display(), .fix.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The tool that repairs it.
        tool: &'static str,
        /// What that tool has to be given.
        fix: PathBuf,
    },
    /// The server runs but doesn't answer.
    #[error("the private Redis didn't answer within {limit:?}; see its log, {}", .log.display())]
    Silent {
        /// How long it was given.
        limit: Duration,
        /// Its log file.
        log: PathBuf,
    },
}
