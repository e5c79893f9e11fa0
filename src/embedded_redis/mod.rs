//! A private Redis, for a service that was given none: started, watched over and stopped with the service.
//!
//! Everything lives in `<data_dir>/redis` (mode 0700): the Unix socket, the append-only file, Redis's log and two lock
//! files. There is no TCP port. Every write is on disk before it is acknowledged (`appendfsync always`).
//!
//! # No orphan
//!
//! Redis must end when the service ends, even by SIGKILL, on Linux and macOS alike. So the service holds the write end
//! of a pipe and never writes to it. A shell loop beside Redis holds the read end. It wakes up when the kernel closes the
//! pipe, sends Redis the SIGTERM of a clean stop, and kills it if it doesn't heed that. The same path serves an orderly
//! stop. The loop is in Redis's process group; as long as it lives, Redis's number can't be another process's.
//!
//! # One Redis on one folder
//!
//! `service.lock` is locked by the service, `redis.lock` by whoever may write Redis's files. Redis inherits the second
//! as its standard output, so the lock lasts until Redis is gone, whatever became of the service: a new service waits
//! for the last Redis to finish instead of starting a second one on its files.

mod error;
mod folder;
mod log;
mod memory;
mod restore;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

pub use self::error::EmbeddedError;
use self::log::{StartLog, TornTail};
pub use self::memory::MaxMemory;
pub use self::restore::{MayLack, RestoreError, Restored, restore};
use crate::redis::probe;
use crate::redis::{Error, RedisUrl};

/// Runs the server and, beside it, the loop that ends it: see the module's documentation. `$$` is the shell's process id,
/// which `exec` hands on to the server, and the number of their group. The loop gives the server ten seconds, and must not
/// hold its lock.
const RUN_TIED_TO_STDIN: &str = "\
server=$(command -v redis-server || command -v valkey-server) || exit 127
exec 3<&0
(
    while read -r _; do :; done
    kill -TERM $$
    n=0
    while [ $n -lt 100 ] && kill -0 $$; do sleep 0.1; n=$((n + 1)); done
    kill -KILL -$$
) <&3 >/dev/null 2>&1 &
exec \"$server\" \"$@\" 3<&- </dev/null";
const NOT_FOUND: i32 = 127;

/// The servers that the loop looks for.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

const SOCKET: &str = "redis.sock";

/// A path to a Unix socket has to fit into `sockaddr_un`: 104 bytes on macOS, 108 on Linux, one of them for the NUL.
const MAX_SOCKET_PATH: usize = 103;

/// A running private Redis. Dropping it stops Redis too, without waiting.
#[derive(Debug)]
pub struct EmbeddedRedis {
    dir: PathBuf,
    url: RedisUrl,
    max_memory: Option<MaxMemory>,
    server: Server,
    redis_lock: File,
    _service_lock: File,
}

/// The server's process, and the pipe whose end is its end. The pipe is kept apart from the child, which would close it
/// as soon as anybody waits for the child.
#[derive(Debug)]
struct Server {
    process: Child,
    lifeline: Option<ChildStdin>,
    log: StartLog,
}

impl Server {
    /// How long the server may take to stop. The loop beside it kills it after ten seconds; it has nothing left to write
    /// by then.
    const STOP_LIMIT: Duration = Duration::from_secs(15);

    /// Ends the server, cleanly if it lets us, and waits until it has ended.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        self.lifeline = None;
        if let Ok(status) = tokio::time::timeout(Self::STOP_LIMIT, self.process.wait()).await {
            return status;
        }
        // The loop that should have killed it is gone itself.
        tracing::warn!(limit = ?Self::STOP_LIMIT, "private Redis doesn't stop and is killed");
        self.process.kill().await?;
        self.process.wait().await
    }
}

impl EmbeddedRedis {
    /// How long Redis may take to answer at all; loading its data is not counted.
    const START_LIMIT: Duration = Duration::from_secs(10);
    /// How long one look at a starting Redis may take.
    const PROBE_LIMIT: Duration = Duration::from_secs(2);
    /// Between two looks at something that is about to happen.
    const POLL: Duration = Duration::from_millis(10);
    /// Before a Redis that ended by itself is started again, so that one that keeps failing doesn't spin.
    const RESTART_PAUSE: Duration = Duration::from_millis(500);
    /// How often in a row a restart may fail, as when the process is out of descriptors for a while.
    const RESTARTS: u32 = 10;

    /// Starts a Redis on the files in `data_dir`, which is made if need be, and waits until it serves. Beyond `max_memory` it
    /// refuses writes, but loads what its files have.
    ///
    /// # Errors
    ///
    /// An [`EmbeddedError`], made to be shown as it is.
    pub async fn start(data_dir: &Path, max_memory: Option<MaxMemory>) -> Result<Self, EmbeddedError> {
        LockedFolder::lock(data_dir).await?.start(max_memory).await
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> RedisUrl {
        self.url.clone()
    }

    /// Starts one in `data_dir`, or finds that of a service that runs there. Says where it is, and gives it if it was started.
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

    /// Where the private Redis of the service that runs on `data_dir` listens, as soon as it serves: it may be starting, or
    /// starting again.
    ///
    /// # Errors
    ///
    /// An [`EmbeddedError`] when it doesn't come to serve, or the folder can't be used.
    pub async fn of_running_service(data_dir: &Path) -> Result<RedisUrl, EmbeddedError> {
        let dir = folder::prepare(data_dir)?;
        let url = RedisUrl::unix(dir.join(SOCKET));
        wait_until_it_serves(&url, &dir, || Ok(())).await?;
        Ok(url)
    }

    /// Starts Redis again whenever it ends by itself. Ends only when that fails several times in a row, with the reason.
    pub async fn supervise(&mut self) -> EmbeddedError {
        loop {
            let status = self.server.process.wait().await;
            self.server.lifeline = None;
            let reason = self.server.log.end();
            tracing::error!(status = %describe(status), reason, "private Redis ended by itself; starting it again");
            let mut failures = 0;
            while let Err(error) = self.restart().await {
                failures += 1;
                if failures == Self::RESTARTS {
                    return error;
                }
                tracing::error!(%error, "can't start the private Redis; trying again");
            }
        }
    }

    async fn restart(&mut self) -> Result<(), EmbeddedError> {
        tokio::time::sleep(Self::RESTART_PAUSE).await;
        // A server that started but never answered is still there, and its lock is ours as well: it would not stop us.
        self.server.end().await.map_err(EmbeddedError::Spawn)?;
        self.server = spawn(&self.dir, self.max_memory, &self.redis_lock)?;
        self.wait_until_it_serves().await
    }

    /// Stops Redis cleanly and waits for its end.
    pub async fn stop(mut self) {
        let status = self.server.end().await;
        tracing::info!(status = %describe(status), "private Redis stopped");
    }

    async fn wait_until_it_serves(&mut self) -> Result<(), EmbeddedError> {
        let Self { dir, url, server, .. } = self;
        wait_until_it_serves(url, dir, || {
            let Some(status) = server.process.try_wait().map_err(EmbeddedError::Spawn)? else { return Ok(()) };
            server.lifeline = None;
            if status.code() == Some(NOT_FOUND) {
                return Err(EmbeddedError::NotInstalled);
            }
            Err(server.log.failure(status))
        })
        .await?;
        if let Some(TornTail { file, kept_bytes, cut_off_bytes }) = self.server.log.torn_tail() {
            tracing::warn!(
                file = %file.display(), kept_bytes, cut_off_bytes,
                "the append-only file ended within a command; Redis has cut that off and serves all that stands before it"
            );
        }
        Ok(())
    }
}

/// The folder of a private Redis that doesn't run. Nobody else can start one there.
struct LockedFolder {
    dir: PathBuf,
    socket: PathBuf,
    service_lock: File,
    redis_lock: File,
}

impl LockedFolder {
    /// Locks the folder in `data_dir`, which is made if need be.
    async fn lock(data_dir: &Path) -> Result<Self, EmbeddedError> {
        // Where there is no server, as in an image for a Redis elsewhere, no folder would help.
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
        let server = spawn(&dir, max_memory, &redis_lock)?;
        let url = RedisUrl::unix(socket);
        let mut redis = EmbeddedRedis { dir, url, max_memory, server, redis_lock, _service_lock: service_lock };
        redis.wait_until_it_serves().await?;
        Ok(redis)
    }
}

/// Waits until the Redis at `url` serves. `look` says in between when it no longer can.
async fn wait_until_it_serves(
    url: &RedisUrl,
    dir: &Path,
    mut look: impl FnMut() -> Result<(), EmbeddedError>,
) -> Result<(), EmbeddedError> {
    let mut deadline = Instant::now() + EmbeddedRedis::START_LIMIT;
    let mut said_loading = false;
    loop {
        match probe(url, EmbeddedRedis::PROBE_LIMIT).await {
            // Somebody who made it a replica will hear of that from whoever uses it.
            Ok(()) | Err(Error::Replica(_)) => {
                tracing::info!(dir = %dir.display(), "private Redis is ready");
                return Ok(());
            }
            Err(Error::TooOld(version)) => return Err(EmbeddedError::TooOld(version)),
            Err(Error::Refused { code, .. }) if code == "LOADING" => {
                if !std::mem::replace(&mut said_loading, true) {
                    tracing::info!("private Redis is loading its data");
                }
                deadline = Instant::now() + EmbeddedRedis::START_LIMIT;
            }
            Err(_) => {}
        }
        look()?;
        if Instant::now() >= deadline {
            return Err(EmbeddedError::Silent { limit: EmbeddedRedis::START_LIMIT, log: StartLog::path(dir) });
        }
        tokio::time::sleep(EmbeddedRedis::POLL).await;
    }
}

/// Whether a server is on `PATH`.
fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| SERVERS.iter().any(|server| dir.join(server).is_file()))
}

fn open_lock(path: &Path) -> Result<File, EmbeddedError> {
    folder::open(path, OpenOptions::new().truncate(false).write(true))
}

/// Locks `path` as soon as the Redis that inherited the lock is gone.
async fn lock_when_free(path: &Path, data_dir: &Path) -> Result<File, EmbeddedError> {
    let file = open_lock(path)?;
    let deadline = Instant::now() + Server::STOP_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(EmbeddedRedis::POLL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::StillRunning(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(EmbeddedError::Folder { path: path.to_owned(), source }),
        }
    }
}

fn spawn(dir: &Path, max_memory: Option<MaxMemory>, redis_lock: &File) -> Result<Server, EmbeddedError> {
    let log = folder::open_to_append(&StartLog::path(dir))?;
    let start = StartLog::begin(dir);
    let inherited_lock = redis_lock.try_clone().map_err(EmbeddedError::Spawn)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(RUN_TIED_TO_STDIN).arg("segment-estimator-redis");
    command
        .args(["--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"])
        .args(["--dir", ".", "--appendonly", "yes", "--appendfsync", "always", "--save", ""])
        .args([
            "--logfile",
            StartLog::NAME,
            "--daemonize",
            "no",
            "--databases",
            "1",
            "--maxmemory-policy",
            "noeviction",
        ])
        // 0 is no limit.
        .args(["--maxmemory", &max_memory.map_or(0, MaxMemory::bytes).to_string()])
        .current_dir(dir)
        // Out of the terminal's foreground group: Ctrl-C is for the service, which stops Redis last.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(inherited_lock)
        .stderr(log);
    let mut process = command.spawn().map_err(|error| match error.kind() {
        // Where there is not even a shell, as in a minimal container, there is no server either.
        io::ErrorKind::NotFound => EmbeddedError::NotInstalled,
        _ => EmbeddedError::Spawn(error),
    })?;
    let lifeline = process.stdin.take();
    Ok(Server { process, lifeline, log: start })
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
