//! Why the private Redis doesn't run.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why the private Redis doesn't run, in one line with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Neither server is installed.
    #[error(
        "there is no redis-server or valkey-server on PATH: install one (Debian and Ubuntu: apt-get install \
         redis-server, macOS: brew install redis) or set redis_url (ESTIMATOR_REDIS_URL)"
    )]
    NotInstalled,
    /// The server lacks commands that the service needs.
    #[error("Redis {0} is too old: install 6.2 or later, or Valkey, or set redis_url (ESTIMATOR_REDIS_URL)")]
    TooOld(String),
    /// Another service runs on the folder.
    #[error("data_dir: {} is in use by another segment-estimator", .0.display())]
    InUse(PathBuf),
    /// The Redis of a service that ended is still running.
    #[error("data_dir: the Redis of an earlier segment-estimator is still running in {}", .0.display())]
    StillRunning(PathBuf),
    /// The path of the socket in the folder would be too long.
    #[error("data_dir: the path {} is too long for a Unix socket; use one of at most {max} bytes", .path.display())]
    PathTooLong {
        /// The folder.
        path: PathBuf,
        /// The limit on its path, in bytes.
        max: usize,
    },
    /// The folder can't be made or used.
    #[error("data_dir: failed to use {}: {source}", .path.display())]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another user owns the folder, or could replace it.
    #[error("data_dir: {} {why}", .path.display())]
    Untrusted {
        /// The folder, a folder above it, or a file in it.
        path: PathBuf,
        /// The reason and the remedy, without the subject.
        why: String,
    },
    /// The server exited, and its disk is full.
    #[error(
        "the disk of {} is full, so the private Redis failed to write; free space on it (the log of Redis ends with: {last_lines})",
        .dir.display()
    )]
    DiskFull {
        /// Its folder.
        dir: PathBuf,
        /// The end of its log, in one line. On a full disk it may be incomplete.
        last_lines: String,
    },
    /// The server could not be run.
    #[error("failed to run the private Redis: {0}")]
    Spawn(io::Error),
    /// The server exited before it answered.
    #[error("the private Redis failed to start ({status}); its log, {}, ends with: {last_lines}", .log.display())]
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The end of the log, in one line.
        last_lines: String,
    },
    /// The server can't read its append-only file.
    #[error(
        "the private Redis failed to start: {} is damaged, and not only cut off at its end; copy its folder, then run \
         `{tool} --fix '{}'`, which asks before it removes the damage and everything after it, or restore a backup",
        .file.display(), .fix.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The tool that repairs it.
        tool: &'static str,
        /// The argument of that tool.
        fix: PathBuf,
    },
    /// The server runs but doesn't answer.
    #[error("the private Redis did not answer within {limit:?}; see its log, {}", .log.display())]
    Silent {
        /// The timeout.
        limit: Duration,
        /// Its log file.
        log: PathBuf,
    },
}
