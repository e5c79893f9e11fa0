//! The binary: run to its end, or serving.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use super::client::Client;
use super::kill;

/// Returns the command of the binary in `folder`. Of this process's environment it gets `PATH` alone.
pub fn binary(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segment-estimator"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Runs the binary, which must refuse to start. Returns the line that it printed, after the one with its version if the
/// log had begun.
#[track_caller]
pub fn refusal(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut message = String::from_utf8(output.stderr).unwrap();
    let first = message.split_inclusive('\n').next().filter(|line| is_start(line)).map(str::len);
    message.drain(..first.unwrap_or_default());
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// Returns whether `line` is the first line of a log.
fn is_start(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|event| event["message"] == "starting")
}

/// The service as a process, and a client of it. Its Redis is a private one unless the arguments name another.
pub struct Service {
    client: Client,
    /// Address of probes and metrics if they have a listener of their own.
    pub admin_address: Option<SocketAddr>,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log to its end.
    reader: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the service in `folder` and waits until it serves.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with_environment(folder, arguments, &[])
    }

    /// Starts the service as [`Self::start`] does, with these variables in its environment.
    pub fn start_with_environment(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = binary(folder)
            .envs(environment.iter().copied())
            .env("ESTIMATOR_LISTEN", "127.0.0.1:0")
            .env("ESTIMATOR_LOG_FORMAT", "json")
            .env("ESTIMATOR_HISTORY_INTERVAL", "off")
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (address, admin_address) = loop {
            let Some(line) = lines.next() else {
                panic!("the service ended with {}: {:#?}", process.wait().unwrap(), log.lock().unwrap())
            };
            let line = line.unwrap();
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && event["message"] == "serving"
            {
                let address = |field: &str| event[field].as_str().map(|text| text.parse().unwrap());
                break (address("address").unwrap(), address("admin_address"));
            }
            log.lock().unwrap().push(line);
        };
        // The service would block on a full pipe.
        let all = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                all.lock().unwrap().push(line);
            }
        });
        Self { client: Client::new(address), admin_address, process, log, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the value of a metric. `name` includes the labels. Panics with the caller's location if there is none.
    #[track_caller]
    pub fn metric(&self, name: &str) -> impl Future<Output = u64> {
        let caller = Location::caller();
        async move {
            let text = self.client.get("/metrics").await.text().await.unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("{caller}: no {name} in {text}")).parse().unwrap()
        }
    }

    /// Returns whether a line of the log contains `text`.
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Kills the service with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends SIGTERM and waits until the service has ended.
    pub fn terminate(self) -> ExitStatus {
        kill("-TERM", self.pid());
        self.ended()
    }

    /// Sends SIGTERM and returns the lines of the log. Panics unless the exit status is 0.
    #[track_caller]
    pub fn terminate_for_log(mut self) -> Vec<String> {
        let (reader, log) = (self.reader.take().unwrap(), Arc::clone(&self.log));
        assert!(self.terminate().success());
        reader.join().unwrap();
        std::mem::take(&mut *log.lock().unwrap())
    }

    /// Waits until the service has ended.
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

/// Kills the service if the test fails, and prints its log.
impl Drop for Service {
    #[expect(clippy::print_stderr, reason = "the harness shows it with the failed test")]
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let _ = self.reader.take().map(JoinHandle::join);
            eprintln!("log of the service:\n{}", self.log.lock().unwrap().join("\n"));
        }
    }
}

/// Returns the folder of the private Redis of a service that runs in `folder`.
pub fn private_redis(folder: &Path) -> PathBuf {
    folder.join("data").join("redis")
}

/// Opens a connection to the private Redis of a service that runs in `folder`.
pub fn private_redis_connection(folder: &Path) -> redis::Connection {
    let url = format!("redis+unix://{}", private_redis(folder).join("redis.sock").display());
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// Returns the process id of the private Redis of a service that runs in `folder`.
pub fn private_redis_pid(folder: &Path) -> u32 {
    let mut connection = private_redis_connection(folder);
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection).unwrap();
    info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap()
}
