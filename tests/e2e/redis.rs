//! A Redis that a test can stop. The service would restart its private one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::wait::TIMEOUT;

/// Redis server on a Unix socket. It ends with the test.
pub struct Redis {
    folder: TempDir,
    process: Child,
}

impl Redis {
    /// Starts Redis and waits until it listens.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(&folder);
        let redis = Self { folder, process };
        redis.wait_until_it_listens();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills Redis with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// Restarts Redis on its files.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder);
        self.wait_until_it_listens();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn wait_until_it_listens(&self) {
        let start = std::time::Instant::now();
        while !self.socket().exists() {
            assert!(start.elapsed() < TIMEOUT, "Redis doesn't start; is redis-server installed?");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &TempDir) -> Child {
    let run = "server=$(command -v redis-server || command -v valkey-server) || exit; exec \"$server\" \"$@\"";
    let own = ["--port", "0", "--save", "", "--appendonly", "yes", "--unixsocket", "redis.sock"];
    Command::new("sh")
        .args(["-c", run, "redis"])
        .args(own)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
