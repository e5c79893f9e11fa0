//! A Redis that can go away, unlike the private one, which the service would start again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::patience::PATIENCE;

/// A Redis server of the test's own, on a Unix socket.
pub struct Redis {
    folder: TempDir,
    process: Child,
}

impl Redis {
    /// Starts it and waits until it listens.
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

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// Starts it again, with what it had.
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
            assert!(start.elapsed() < PATIENCE, "Redis doesn't start: is redis-server installed?");
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
