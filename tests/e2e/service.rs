//! The service under test: the binary that `make e2e` built, with a private Redis.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait::TIMEOUT;

/// Service in a temporary folder. It ends with the test, and so does its Redis.
pub struct Service {
    folder: TempDir,
    process: Child,
    /// URL of the service without a slash at the end.
    pub origin: String,
    pub http: reqwest::Client,
}

impl Service {
    /// Starts the service and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts the service with access control. Returns a key with the scopes to read and to write, and one with the
    /// scope to write.
    pub fn start_with_keys() -> (Self, [String; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let keys = ["segments:read,segments:write", "segments:write"].map(|scope| {
            let name = scope.replace([':', ','], "-");
            let arguments = ["token", "--name", &name, "--scope", scope, "--api-keys-file", "keys.toml"];
            let output = binary(&folder).args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        });
        (Self::start_in(folder, &["--api-keys-file", "keys.toml"]), keys)
    }

    /// Starts the service with the made-up history of 40 segments. Returns the name of the largest one, too.
    pub async fn start_with_history() -> (Self, String) {
        let service = Self::start(&[]);
        service.run(&["demo", "--segments", "40", "--users", "20000"]);
        let list = service.json("/segments?sort=count&limit=1").await;
        let name = list["segments"][0]["segment"].as_str().unwrap().to_owned();
        (service, name)
    }

    fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
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
        // The service would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { folder, process, origin: format!("http://{address}"), http: reqwest::Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Runs a command of the binary on the service's data.
    pub fn run(&self, arguments: &[&str]) {
        let output = binary(&self.folder).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Records visits of a user to a segment, each a number of seconds ago.
    pub async fn record(&self, visits: impl IntoIterator<Item = (String, &str, u64)>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let lines = visits.into_iter().map(|(user, segment, ago)| {
            format!("{}\n", json!({ "user_id": user, "segment": segment, "seen_at": now - ago }))
        });
        let lines: Vec<_> = lines.collect();
        let request = self.http.post(self.url("/segments/batch")).header("content-type", "application/x-ndjson");
        let response = request.body(lines.concat()).send().await.unwrap();
        let report: Value = response.json().await.unwrap();
        assert_eq!(report["accepted"], lines.len(), "{report}");
    }

    /// Records a visit of each of `users` users to a segment.
    pub async fn fill(&self, segment: &str, users: usize) {
        self.record((0..users).map(|user| (format!("u{user}"), segment, 0))).await;
    }

    /// Returns the API's response at `path`.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // At SIGTERM the service stops its Redis, too.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.process.id())]).status();
        let start = Instant::now();
        while start.elapsed() < TIMEOUT && !matches!(self.process.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the command of the binary. Of this process's environment it gets `PATH` alone.
fn binary(folder: &TempDir) -> Command {
    // The tests are in `target/debug/deps`.
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.ancestors().nth(2).unwrap().join("segment-estimator");
    assert!(path.exists(), "{} is not built; `make e2e` builds it", path.display());
    let mut command = Command::new(path);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(folder.path()).stdin(Stdio::null());
    command
}
