//! The binary: run to its end, or serving with a private Redis.

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use super::client::Client;
use super::kill;

/// The binary, in a folder of its own, with nothing of this process's environment but `PATH`.
pub fn binary(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segment-estimator"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Runs the binary, which must refuse to start, and gives its one line.
pub fn refusal(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// The service as a process with a private Redis, serving, and a client of it.
pub struct Service {
    client: Client,
    process: Child,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Service {
    /// Starts it in `folder` and waits until it serves.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = binary(folder)
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else {
                panic!("the service ended with {}: {log:#?}", process.wait().unwrap())
            };
            let line = line.unwrap();
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && event["message"] == "serving"
            {
                break event["address"].as_str().unwrap().parse().unwrap();
            }
            log.push(line);
        };
        // A pipe that nobody reads would fill up and stop the service.
        let log = std::thread::spawn(move || {
            log.extend(lines.map(Result::unwrap));
            log
        });
        Self { client: Client::new(address), process, log: Some(log) }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills it: no handler of its own gets to run.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(self) -> ExitStatus {
        kill("-TERM", self.pid());
        self.ended()
    }

    /// Asks it to stop, and gives the lines of its log.
    pub fn terminate_for_log(mut self) -> Vec<String> {
        let log = self.log.take().unwrap();
        assert!(self.terminate().success());
        log.join().unwrap()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Deref for Service {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A test that fails leaves no service behind.
impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder of the private Redis of a service that runs in `folder`.
pub fn private_redis(folder: &Path) -> PathBuf {
    folder.join("data").join("redis")
}

/// A connection to that Redis.
pub fn private_redis_connection(folder: &Path) -> redis::Connection {
    let url = format!("redis+unix://{}", private_redis(folder).join("redis.sock").display());
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// The process id of that Redis.
pub fn private_redis_pid(folder: &Path) -> u32 {
    let mut connection = private_redis_connection(folder);
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection).unwrap();
    info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap()
}
