//! The process of the private Redis, and the watchdog that ends it with the service.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};

use super::log::StartLog;
use super::{EmbeddedError, MaxMemory, folder};
use crate::redis;

/// Runs the server, and the watchdog in the background. `$$` is the process id of the shell, which `exec` hands on to
/// the server. It is the id of their process group as well. The watchdog gives the server ten seconds to stop, and must
/// not hold its lock.
const RUN_WITH_WATCHDOG: &str = "\
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

/// The servers that the script looks for.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

/// The name of the Unix socket in the folder.
pub(super) const SOCKET: &str = "redis.sock";

/// A running `redis-server`, or one that has exited by itself.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    /// The write end of the watchdog's pipe. It is kept apart from the child, which closes its own as soon as it is
    /// waited for.
    watchdog_pipe: Option<ChildStdin>,
    log: StartLog,
}

impl ServerProcess {
    /// How long the server may take to stop. The watchdog kills it after ten seconds.
    pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(15);

    /// Starts a server on the files in `dir`. It inherits `redis_lock`.
    pub(super) fn spawn(dir: &Path, max_memory: Option<MaxMemory>, redis_lock: &File) -> Result<Self, EmbeddedError> {
        let log_file = folder::open_to_append(&StartLog::path(dir))?;
        let log = StartLog::begin(dir);
        let inherited_lock = redis_lock.try_clone().map_err(EmbeddedError::Spawn)?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(RUN_WITH_WATCHDOG).arg("segment-estimator-redis");
        command
            .args(["--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"])
            .args(["--dir", ".", "--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            // Redis 6 knows only this name; later versions know it as well.
            .args(["--zset-max-ziplist-entries", &redis::MAX_LISTPACK_ENTRIES.to_string()])
            .args(["--logfile", StartLog::NAME, "--daemonize", "no", "--databases", "1"])
            // 0 is no limit.
            .args(["--maxmemory", &max_memory.map_or(0, MaxMemory::bytes).to_string()])
            .args(["--maxmemory-policy", "noeviction"])
            .current_dir(dir)
            // Out of the terminal's foreground group: Ctrl-C is for the service, which stops Redis last.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(inherited_lock)
            .stderr(log_file);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            // A system without a shell, such as a minimal container, has no server either.
            io::ErrorKind::NotFound => EmbeddedError::NotInstalled,
            _ => EmbeddedError::Spawn(error),
        })?;
        let watchdog_pipe = child.stdin.take();
        Ok(Self { child, watchdog_pipe, log })
    }

    pub(super) fn log(&self) -> &StartLog {
        &self.log
    }

    /// Waits until the server exits by itself.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.watchdog_pipe = None;
        status
    }

    /// Returns an error if the server has exited.
    pub(super) fn check_running(&mut self) -> Result<(), EmbeddedError> {
        let Some(status) = self.child.try_wait().map_err(EmbeddedError::Spawn)? else { return Ok(()) };
        self.watchdog_pipe = None;
        if status.code() == Some(NOT_FOUND) {
            return Err(EmbeddedError::NotInstalled);
        }
        Err(self.log.start_error(status))
    }

    /// Stops the server, and kills it after [`Self::STOP_TIMEOUT`].
    pub(super) async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.watchdog_pipe = None;
        if let Ok(status) = tokio::time::timeout(Self::STOP_TIMEOUT, self.child.wait()).await {
            return status;
        }
        // The watchdog, which should have killed it, is gone.
        tracing::warn!(timeout = ?Self::STOP_TIMEOUT, "private Redis did not stop in time, killing it");
        self.child.kill().await?;
        self.child.wait().await
    }
}

/// Returns whether a server is on `PATH`.
pub(super) fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| SERVERS.iter().any(|server| dir.join(server).is_file()))
}
