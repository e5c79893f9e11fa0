//! The service that the browser looks at: the binary, as `make e2e` has built it, with a private Redis.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::patience::PATIENCE;

/// A service in a folder of its own. It ends with the test, and so does its Redis.
pub struct Service {
    _folder: TempDir,
    process: Child,
    /// Its address as a URL, without a slash at the end.
    pub origin: String,
    pub http: reqwest::Client,
}

impl Service {
    /// Starts it and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = binary(&folder)
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut log = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else {
                panic!("the service ended with {}: {log:#?}", process.wait().unwrap())
            };
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "serving" {
                break event["address"].as_str().unwrap().to_owned();
            }
            log.push(line);
        };
        // A pipe that nobody reads would fill up and stop the service.
        std::thread::spawn(move || lines.for_each(drop));
        Self { _folder: folder, process, origin: format!("http://{address}"), http: reqwest::Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// What the API says at `path`.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Asked to, it ends its Redis, too.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.process.id())]).status();
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !matches!(self.process.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The binary, with nothing of this process's environment but `PATH`.
fn binary(folder: &TempDir) -> Command {
    // The tests stand in `target/debug/deps`.
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.ancestors().nth(2).unwrap().join("segment-estimator");
    assert!(path.exists(), "{} is not built: `make e2e` builds it", path.display());
    let mut command = Command::new(path);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(folder.path()).stdin(Stdio::null());
    command
}
