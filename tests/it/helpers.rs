//! A Redis, a service in this process, and a service in a process of its own, for one test each.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response, StatusCode};
use segment_estimator::app::{App, AppError};
use segment_estimator::estimator::Estimator;
use segment_estimator::segment::{SegmentName, UserId, Visit};
use segment_estimator::settings::{Layer, Settings, Source};
use segment_estimator::store::{Connection, Limits, RedisUrl, Store};
use segment_estimator::time::{Timestamp, Window};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up on it. Nothing is asserted about how long it does take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The moment that tests with a clock of their own start from.
pub const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

/// Waits until `check` holds.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for what must end.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("still not done: {what}"))
}

pub fn segment(name: &str) -> SegmentName {
    SegmentName::parse(name).unwrap()
}

/// A visit that is taken in at the time it was seen at.
pub fn visit(user: &str, name: &str, seen_at: Timestamp) -> Visit {
    Visit::new(UserId::parse(user).unwrap(), segment(name), Some(seen_at), seen_at).unwrap()
}

/// `NOON` and `millis` milliseconds.
pub fn noon_plus(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOON.as_millis() + millis)
}

/// Sends `signal` to a process, by the shell's own `kill`: a minimal system has no program of that name.
pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status().unwrap().success());
}

/// Whether a process runs. One that has ended and that nobody has asked after yet, a zombie, does not.
pub fn is_running(pid: u32) -> bool {
    let state = if Path::new("/proc/self/stat").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap().to_owned()
    } else {
        let ps = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
        String::from_utf8(ps.stdout).unwrap()
    };
    !(state.is_empty() || state.starts_with('Z'))
}

/// A Redis server of the test's own, on a Unix socket, which ends with the test.
pub struct Redis {
    folder: TempDir,
    arguments: Vec<String>,
    process: Child,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = Self::spawn(folder.path(), &arguments);
        let mut redis = Self { folder, arguments, process };
        redis.wait_until_it_answers();
        redis
    }

    fn spawn(folder: &Path, arguments: &[String]) -> Child {
        let spawn = |server| {
            Command::new(server)
                .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "yes"])
                .args(["--appendfsync", "no", "--logfile", "redis.log"])
                .args(arguments)
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        };
        spawn("redis-server").or_else(|_| spawn("valkey-server")).expect("the tests need redis-server: see make test")
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // Any reply but LOADING is an answer; NOAUTH is one too.
        while !self.try_connect().is_some_and(|mut connection| {
            let reply = redis::cmd("PING").exec(&mut connection);
            !reply.is_err_and(|error| error.is_io_error() || error.code() == Some("LOADING"))
        }) {
            assert!(Instant::now() < deadline, "Redis doesn't answer");
            assert!(self.process.try_wait().unwrap().is_none(), "Redis has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn try_connect(&self) -> Option<redis::Connection> {
        redis::Client::open(self.url()).unwrap().get_connection().ok()
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }

    /// Calls a command and gives its answer, to look at what is stored.
    pub fn call<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.try_connect().expect("Redis answers");
        let mut call = redis::Cmd::new();
        for word in command {
            call.arg(word);
        }
        call.query(&mut connection).unwrap()
    }

    /// How often a command was called since `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.call(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// Ends it as a crash would.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on its files.
    pub fn start_again(&mut self) {
        self.process = Self::spawn(self.folder.path(), &self.arguments);
        self.wait_until_it_answers();
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An estimator on this Redis, without HTTP.
    pub fn estimator(&self, window: &str) -> Estimator {
        Estimator::new(self.store(), Window::parse(window).unwrap())
    }

    pub fn store(&self) -> Store {
        let limits = Limits { connect: PATIENCE, answer: PATIENCE };
        Store::new(Connection::new(RedisUrl::parse(&self.url()).unwrap(), limits).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TCP address in front of a Redis, whose connections can go dead: open, but never answering again.
pub struct Proxy {
    pub address: SocketAddr,
    alive: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    pub async fn start(redis: &Redis) -> Self {
        let socket = redis.folder.path().join("redis.sock");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let alive = Arc::new(Mutex::new(CancellationToken::new()));
        let current = Arc::clone(&alive);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let alive = current.lock().unwrap().clone();
                let mut server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(async move {
                    let copying = tokio::io::copy_bidirectional(&mut client, &mut server);
                    if alive.run_until_cancelled(copying).await.is_none() {
                        // Keeps both ends open and does nothing with them.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, alive }
    }

    /// All connections made so far go dead. New ones work.
    pub fn deaden_connections(&self) {
        std::mem::take(&mut *self.alive.lock().unwrap()).cancel();
    }
}

/// The service in this process, on a port of its own.
pub struct TestApp {
    pub address: SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl TestApp {
    /// A service on `redis` with the default settings.
    pub async fn spawn(redis: &Redis) -> Self {
        Self::spawn_with(redis, Layer::default()).await
    }

    /// A service on `redis` with some settings changed.
    pub async fn spawn_with(redis: &Redis, changes: Layer) -> Self {
        Self::spawn_on(redis.url(), changes).await
    }

    /// A service on the Redis that is, or will be, at `url`.
    pub async fn spawn_on(url: String, changes: Layer) -> Self {
        let test = Layer { listen: Some("127.0.0.1:0".to_owned()), redis_url: Some(url), ..Layer::default() };
        let layers = [(Source::Defaults, Layer::defaults()), (Source::Environment, test), (Source::Flags, changes)];
        let app = App::build(&Settings::from_layers(&layers).unwrap()).await.unwrap();
        let stop = CancellationToken::new();
        Self {
            address: app.local_addr(),
            client: reqwest::Client::new(),
            stop: stop.clone(),
            running: tokio::spawn(async move { app.run_until(stop.cancelled()).await }),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await.unwrap()
    }

    pub async fn post_visit(&self, visit: &Value) -> Response {
        self.request("POST", "/segments").json(visit).send().await.unwrap()
    }

    /// Posts a visit of now, which must be acknowledged.
    pub async fn record(&self, user: &str, segment: &str) {
        let response = self.post_visit(&json!({ "user_id": user, "segment": segment })).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    /// Asks for a count, which must be answered.
    pub async fn count(&self, segment: &str) -> u64 {
        let response = self.get(&count_path(segment)).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["count"].as_u64().unwrap()
    }

    pub async fn status_of(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }

    /// Asks the service to stop, as a signal would.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the service's end.
    pub async fn ended(self) -> Result<(), AppError> {
        in_time("the service's end", self.running).await.unwrap()
    }
}

/// The path of a segment's count, every byte of the name percent-encoded.
pub fn count_path(segment: &str) -> String {
    let name: String = segment.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/segments/{name}/count")
}

/// Checks that `response` is a problem document of this status and type, and gives the document.
pub async fn problem(response: Response, status: u16, slug: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["status"], status);
    assert_eq!(document["type"], format!("urn:segment-estimator:problem:{slug}"));
    assert_eq!(document["request_id"], id);
    assert!(!document["title"].as_str().unwrap().is_empty());
    assert!(!document["detail"].as_str().unwrap().is_empty());
    document
}

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

/// The service as a process with a private Redis, serving.
pub struct Service {
    pub address: SocketAddr,
    process: Child,
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
        std::thread::spawn(move || for _ in lines {});
        Self { address, process }
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
    pub fn terminate(mut self) -> ExitStatus {
        kill("-TERM", self.pid());
        self.process.wait().unwrap()
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

/// The process id of that Redis.
pub fn private_redis_pid(folder: &Path) -> u32 {
    let url = format!("redis+unix://{}", private_redis(folder).join("redis.sock").display());
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection).unwrap();
    info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap()
}
