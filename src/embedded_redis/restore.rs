//! Restoring a backup into the folder of a private Redis.
//!
//! `restore.sh` has the steps. scripts/restore runs it as well, for docker compose. The folder is locked until the end,
//! so that no service starts on data that is only partly replaced.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

use super::{EmbeddedError, EmbeddedRedis, LockedFolder, SOCKET};
use crate::store::KeyPrefix;

const SCRIPT: &str = include_str!("restore.sh");

/// Endings of the files that form an append-only file. One of them alone is not a backup.
const PARTS_OF_AN_APPEND_ONLY_FILE: [&str; 3] = [".incr.aof", ".base.aof", ".base.rdb"];

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// Keys without a TTL in the backup.
    pub keys: u64,
    /// Members of their sorted sets.
    pub members: u64,
    /// Segments in the index.
    pub segments: u64,
    /// The folder of the old data.
    pub old_data: PathBuf,
}

/// What may be missing from a backup.
#[derive(Debug, Clone, Copy, Default)]
pub struct MayLack {
    /// The record of a data set.
    pub record: bool,
    /// All segments and histories, although there is data to replace.
    pub data: bool,
}

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup can't be read.
    #[error("failed to read {}: {source}", .path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The backup is one of the files that form an append-only file.
    #[error(
        "{}: this is a part of an append-only file, which lacks what the others have; copy the whole folder `appendonlydir`, or back up \
         with `redis-cli --rdb`; no data was changed",
        .0.display()
    )]
    Part(PathBuf),
    /// A service uses the folder.
    #[error("data_dir: {} is in use by another segment-estimator; stop it first; no data was changed", .0.display())]
    InUse(PathBuf),
    /// The folder can't be used.
    #[error("{0}; no data was changed")]
    Folder(EmbeddedError),
    /// The restore failed, and the old data is in place.
    #[error("failed to restore {}: {why}; no data was changed", .path.display())]
    Unchanged {
        /// The backup.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// The restore failed, and so did bringing the old data back. Either may be in place, or a part of it.
    #[error(
        "failed to restore {}: {why}; then failed to bring the old data back: {undo}; it is in {}",
        .path.display(), .old_data.display()
    )]
    NotUndone {
        /// The backup.
        path: PathBuf,
        /// Why the restore failed.
        why: String,
        /// Why the old data was not brought back.
        undo: String,
        /// The folder of the old data.
        old_data: PathBuf,
    },
}

/// Replaces all data of the private Redis in `data_dir` with `backup`: an RDB file, or an append-only file of commands.
/// The old data is moved to a folder of its own. Then starts Redis, compares the numbers of keys, members and segments
/// with those of the backup, and stops Redis.
///
/// The keys of the backup must begin with `prefix`. A backup without a record, or without data, is refused unless
/// `may_lack` permits it.
///
/// # Errors
///
/// A [`RestoreError`], whose text is for the user. After any but [`RestoreError::NotUndone`], the old data is in place.
pub async fn restore(
    data_dir: &Path,
    backup: &Path,
    prefix: &KeyPrefix,
    may_lack: MayLack,
) -> Result<Restored, RestoreError> {
    let unreadable = |source| RestoreError::Backup { path: backup.to_owned(), source };
    let file = backup.canonicalize().map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a file")));
    }
    File::open(&file).map_err(unreadable)?;
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if PARTS_OF_AN_APPEND_ONLY_FILE.iter().any(|end| name.ends_with(end)) {
        return Err(RestoreError::Part(backup.to_owned()));
    }
    let folder = LockedFolder::lock(data_dir).await.map_err(|error| match error {
        EmbeddedError::InUse(data_dir) => RestoreError::InUse(data_dir),
        error => RestoreError::Folder(error),
    })?;
    let dir = folder.dir.clone();

    let unchanged = |why| RestoreError::Unchanged { path: backup.to_owned(), why };
    let name = run(script(&dir, "name")).await.map_err(unchanged)?;
    let old_data = dir.join(&name);
    let yes = |is: bool| if is { "yes" } else { "" };
    let mut put = script(&dir, "put");
    put.env("KEY_PREFIX", prefix.as_str())
        .env("UNRECORDED", yes(may_lack.record))
        .env("EMPTY", yes(may_lack.data))
        .env("ONE_DATABASE", "yes");
    put.arg(&name).arg(&file).stdin(inherited_lock(&folder).map_err(RestoreError::Folder)?);
    let why = match run(put).await {
        // The script may have failed after it had replaced the data.
        Err(why) => {
            // Undoing locks the folder itself.
            drop(folder);
            why
        }
        Ok(counts) => match serve_and_count(folder, prefix).await {
            Ok(served) if served == counts => {
                let numbers: Vec<_> = counts.split(' ').filter_map(|number| number.parse().ok()).collect();
                match numbers[..] {
                    [keys, members, segments] => return Ok(Restored { keys, members, segments, old_data }),
                    _ => format!("unexpected output: {counts}"),
                }
            }
            Ok(served) => format!("Redis serves keys, members and segments {served} instead of {counts}"),
            Err(error) => error,
        },
    };
    match undo(data_dir, &name).await {
        Ok(()) => Err(unchanged(why)),
        Err(undo) => Err(RestoreError::NotUndone { path: backup.to_owned(), why, undo, old_data }),
    }
}

/// Starts Redis, counts what it serves, and stops it.
async fn serve_and_count(folder: LockedFolder, prefix: &KeyPrefix) -> Result<String, String> {
    let dir = folder.dir.clone();
    // No memory limit, since Redis must load the whole backup.
    let redis: EmbeddedRedis = folder.start(None).await.map_err(|error| error.to_string())?;
    let mut count = script(&dir, "count");
    count.env("KEY_PREFIX", prefix.as_str()).args(["-s", SOCKET]).stdin(Stdio::null());
    let counts = run(count).await;
    redis.stop().await;
    counts
}

async fn undo(data_dir: &Path, name: &str) -> Result<(), String> {
    let folder = LockedFolder::lock(data_dir).await.map_err(|error| error.to_string())?;
    let mut undo = script(&folder.dir, "undo");
    undo.arg(name).stdin(inherited_lock(&folder).map_err(|error| error.to_string())?);
    run(undo).await.map(drop)
}

/// Returns a handle of the lock of Redis's files. The script inherits it as its standard input, so the lock lasts until
/// the script ends, even if this process ends first.
fn inherited_lock(folder: &LockedFolder) -> Result<File, EmbeddedError> {
    folder.redis_lock.try_clone().map_err(EmbeddedError::Spawn)
}

fn script(dir: &Path, action: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "restore", action]).current_dir(dir).env_remove("REDISCLI_AUTH");
    command
}

/// Runs the script to its end. Returns the last line of its output.
///
/// # Errors
///
/// The last line of its standard error.
async fn run(mut command: Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().await.map_err(|error| error.to_string())?;
    let last_line = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().last().map(str::to_owned);
    if status.success() {
        Ok(last_line(&stdout).unwrap_or_default())
    } else {
        Err(last_line(&stderr).unwrap_or_else(|| status.to_string()))
    }
}
