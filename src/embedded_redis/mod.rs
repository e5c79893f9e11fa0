//! A private Redis for a service without `redis_url`: starts, supervises and stops a `redis-server`.
//!
//! Everything lives in `<data_dir>/redis` (mode 0700): the Unix socket, the append-only file, Redis's log and two lock
//! files. There is no TCP port. Every write is on disk before it is acknowledged (`appendfsync always`).
//!
//! # No orphan
//!
//! Redis must end when the service ends, even by SIGKILL, on Linux and macOS alike. The service holds the write end of
//! a pipe and never writes to it. A watchdog, which is a shell loop beside Redis, holds the read end. When the service
//! ends, the kernel closes the pipe, and the watchdog sends Redis a SIGTERM. If Redis is still running ten seconds
//! later, the watchdog kills it. An orderly stop takes the same path. The watchdog is in Redis's process group, so
//! Redis's process id can't be reused as long as the watchdog lives.
//!
//! # One Redis on one folder
//!
//! The service locks `service.lock`. A process that may write Redis's files locks `redis.lock`. Redis inherits the
//! second lock as its standard output, so the lock lasts until Redis has exited, even if the service was killed. A new
//! service waits for that lock instead of starting a second Redis on the same files.

mod error;
mod folder;
mod log;
mod memory;
mod process;
mod restore;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

pub use self::error::EmbeddedError;
use self::log::{StartLog, Truncation};
pub use self::memory::MaxMemory;
use self::process::{SOCKET, ServerProcess, is_installed};
pub use self::restore::{MayLack, RestoreError, Restored, restore};
use crate::redis::probe;
use crate::redis::{Error, RedisUrl};

/// The limit on a socket's path: `sockaddr_un` has 104 bytes on macOS and 108 on Linux, with the NUL.
const MAX_SOCKET_PATH: usize = 103;

/// A running private Redis. Dropping it stops Redis without waiting.
#[derive(Debug)]
pub struct EmbeddedRedis {
    dir: PathBuf,
    url: RedisUrl,
    max_memory: Option<MaxMemory>,
    server: ServerProcess,
    redis_lock: File,
    _service_lock: File,
}

impl EmbeddedRedis {
    /// How long Redis may take to answer. The limit begins again while Redis loads its data.
    const START_TIMEOUT: Duration = Duration::from_secs(10);
    const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    /// The pause before a restart, so that a Redis that keeps failing doesn't spin.
    const RESTART_PAUSE: Duration = Duration::from_millis(500);
    /// The limit on failed restarts in a row. One may fail while the process is out of descriptors.
    const MAX_RESTARTS: u32 = 10;

    /// Starts a Redis on the files in `data_dir`, and waits until it serves. Creates the folder if needed. Redis
    /// refuses writes beyond `max_memory`, but loads all of its files.
    ///
    /// # Errors
    ///
    /// An [`EmbeddedError`] in one line for the user.
    pub async fn start(data_dir: &Path, max_memory: Option<MaxMemory>) -> Result<Self, EmbeddedError> {
        LockedFolder::lock(data_dir).await?.start(max_memory).await
    }

    /// Returns the folder of the private Redis in `data_dir`.
    #[must_use]
    pub fn dir_in(data_dir: &Path) -> PathBuf {
        folder::dir_in(data_dir)
    }

    /// Returns the URL of its socket.
    #[must_use]
    pub fn url(&self) -> RedisUrl {
        self.url.clone()
    }

    /// Starts a Redis in `data_dir`, or finds that of a running service. Returns its URL, and the Redis if it was
    /// started.
    ///
    /// # Errors
    ///
    /// As [`Self::start`] and [`Self::of_running_service`].
    pub async fn start_or_join(
        data_dir: &Path,
        max_memory: Option<MaxMemory>,
    ) -> Result<(RedisUrl, Option<Self>), EmbeddedError> {
        match Self::start(data_dir, max_memory).await {
            Ok(redis) => Ok((redis.url(), Some(redis))),
            Err(EmbeddedError::InUse(data_dir)) => Ok((Self::of_running_service(&data_dir).await?, None)),
            Err(error) => Err(error),
        }
    }

    /// Waits until the private Redis of the service on `data_dir` serves, which may be starting or restarting. Returns
    /// its URL.
    ///
    /// # Errors
    ///
    /// An [`EmbeddedError`] if it doesn't serve in time, or the folder can't be used.
    pub async fn of_running_service(data_dir: &Path) -> Result<RedisUrl, EmbeddedError> {
        let dir = folder::prepare(data_dir)?;
        let url = RedisUrl::unix(dir.join(SOCKET));
        wait_until_it_serves(&url, &dir, || Ok(())).await?;
        Ok(url)
    }

    /// Restarts Redis whenever it exits by itself. Returns the last error after too many failures in a row.
    pub async fn supervise(&mut self) -> EmbeddedError {
        loop {
            let status = self.server.wait().await;
            let reason = self.server.log().exit_reason();
            tracing::error!(status = %describe(status), reason, "private Redis exited by itself, starting it again");
            let mut failures = 0;
            while let Err(error) = self.restart().await {
                failures += 1;
                if failures == Self::MAX_RESTARTS {
                    return error;
                }
                tracing::error!(%error, "failed to restart the private Redis, retrying");
            }
        }
    }

    async fn restart(&mut self) -> Result<(), EmbeddedError> {
        tokio::time::sleep(Self::RESTART_PAUSE).await;
        // A server that started without answering is still running, and this process holds its lock as well.
        self.server.stop().await.map_err(EmbeddedError::Spawn)?;
        self.server = ServerProcess::spawn(&self.dir, self.max_memory, &self.redis_lock)?;
        self.wait_until_it_serves().await
    }

    /// Stops Redis in an orderly way, and waits until it has exited.
    pub async fn stop(mut self) {
        let status = self.server.stop().await;
        tracing::info!(status = %describe(status), "private Redis stopped");
    }

    async fn wait_until_it_serves(&mut self) -> Result<(), EmbeddedError> {
        let Self { dir, url, server, .. } = self;
        wait_until_it_serves(url, dir, || server.check_running()).await?;
        if let Some(Truncation { file, kept_bytes, cut_off_bytes }) = server.log().truncation() {
            tracing::warn!(
                file = %file.display(), kept_bytes, cut_off_bytes,
                "the append-only file ended within a command; Redis truncated it to the last whole command"
            );
        }
        Ok(())
    }
}

/// The folder of a private Redis, with the locks that keep other processes from starting one there.
struct LockedFolder {
    dir: PathBuf,
    socket: PathBuf,
    service_lock: File,
    redis_lock: File,
}

impl LockedFolder {
    /// Locks the folder in `data_dir`. Creates it if needed.
    async fn lock(data_dir: &Path) -> Result<Self, EmbeddedError> {
        // An image without a server, made for another Redis, may have no writable folder. The missing server is the
        // cause to report.
        let dir = folder::prepare(data_dir)
            .map_err(|error| if is_installed() { error } else { EmbeddedError::NotInstalled })?;
        let socket = dir.join(SOCKET);
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let max = MAX_SOCKET_PATH - "/redis/".len() - SOCKET.len();
            return Err(EmbeddedError::PathTooLong { path: data_dir.to_owned(), max });
        }

        let service_lock = open_lock(&dir.join("service.lock"))?;
        match service_lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::InUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(EmbeddedError::Folder { path: dir, source }),
        }
        let redis_lock = lock_when_free(&dir.join("redis.lock"), data_dir).await?;
        Ok(Self { dir, socket, service_lock, redis_lock })
    }

    /// Starts Redis on the folder and waits until it serves.
    async fn start(self, max_memory: Option<MaxMemory>) -> Result<EmbeddedRedis, EmbeddedError> {
        let Self { dir, socket, service_lock, redis_lock } = self;
        let server = ServerProcess::spawn(&dir, max_memory, &redis_lock)?;
        let url = RedisUrl::unix(socket);
        let mut redis = EmbeddedRedis { dir, url, max_memory, server, redis_lock, _service_lock: service_lock };
        redis.wait_until_it_serves().await?;
        Ok(redis)
    }
}

/// Waits until the Redis at `url` serves. `check_running` fails if it no longer can.
async fn wait_until_it_serves(
    url: &RedisUrl,
    dir: &Path,
    mut check_running: impl FnMut() -> Result<(), EmbeddedError>,
) -> Result<(), EmbeddedError> {
    let mut deadline = Instant::now() + EmbeddedRedis::START_TIMEOUT;
    let mut is_loading_logged = false;
    loop {
        match probe(url, EmbeddedRedis::PROBE_TIMEOUT).await {
            // A replica serves reads. The first write reports it.
            Ok(()) | Err(Error::Replica(_)) => {
                tracing::info!(dir = %dir.display(), "private Redis is ready");
                return Ok(());
            }
            Err(Error::TooOld(version)) => return Err(EmbeddedError::TooOld(version)),
            Err(Error::Refused { code, .. }) if code == "LOADING" => {
                if !std::mem::replace(&mut is_loading_logged, true) {
                    tracing::info!("private Redis is loading its data");
                }
                deadline = Instant::now() + EmbeddedRedis::START_TIMEOUT;
            }
            Err(_) => {}
        }
        check_running()?;
        if Instant::now() >= deadline {
            return Err(EmbeddedError::Silent { limit: EmbeddedRedis::START_TIMEOUT, log: StartLog::path(dir) });
        }
        tokio::time::sleep(EmbeddedRedis::POLL_INTERVAL).await;
    }
}

fn open_lock(path: &Path) -> Result<File, EmbeddedError> {
    folder::open(path, OpenOptions::new().truncate(false).write(true))
}

/// Locks `path` as soon as an earlier Redis, which inherited the lock, has exited.
async fn lock_when_free(path: &Path, data_dir: &Path) -> Result<File, EmbeddedError> {
    let file = open_lock(path)?;
    let deadline = Instant::now() + ServerProcess::STOP_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(EmbeddedRedis::POLL_INTERVAL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::StillRunning(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(EmbeddedError::Folder { path: path.to_owned(), source }),
        }
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
