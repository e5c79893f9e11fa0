//! A Redis of the test's own, and a proxy in front of one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use segment_estimator::estimator::Estimator;
use segment_estimator::store::{Connection, Limits, RedisUrl, Store};
use segment_estimator::time::Window;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

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
            let reply = ::redis::cmd("PING").exec(&mut connection);
            !reply.is_err_and(|error| error.is_io_error() || error.code() == Some("LOADING"))
        }) {
            assert!(Instant::now() < deadline, "Redis doesn't answer");
            assert!(self.process.try_wait().unwrap().is_none(), "Redis has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn try_connect(&self) -> Option<::redis::Connection> {
        ::redis::Client::open(self.url()).unwrap().get_connection().ok()
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Calls a command and gives its answer, to look at what is stored.
    pub fn call<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.try_connect().expect("Redis answers");
        let mut call = ::redis::Cmd::new();
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

    /// The commands that it runs from now on, as `MONITOR` shows them.
    pub fn monitor(&self) -> impl Iterator<Item = String> + Send + 'static {
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        lines
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
        let limits = Limits { connect: PATIENCE, answer: PATIENCE, waiting: 10_000 };
        Store::new(Connection::new(RedisUrl::parse(&self.url()).unwrap(), limits, Arc::default()).unwrap())
    }
}

/// A TCP port that nobody listens on at the moment.
pub fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Passes on what either end sends, until one of them closes.
async fn pass_on(client: &mut TcpStream, server: &mut UnixStream, mut holds_replies: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let replies = async {
        let mut reply = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut reply).await {
            if holds_replies.wait_for(|holds| !holds).await.is_err()
                || to_client.write_all(&reply[..length]).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        () = replies => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TCP address in front of a Redis, whose connections can be slow to begin, hold replies, go dead, or lead elsewhere.
pub struct Proxy {
    pub address: SocketAddr,
    route: Arc<Mutex<Route>>,
    /// Whether replies wait.
    holds_replies: watch::Sender<bool>,
}

struct Route {
    socket: PathBuf,
    /// New connections wait this long before anything is passed on.
    delay: Duration,
    /// Cancelled when the connections made so far go dead: open, but never answering again.
    alive: CancellationToken,
}

impl Proxy {
    pub async fn start(redis: &Redis) -> Self {
        Self::start_slow(redis, Duration::ZERO).await
    }

    /// A proxy that lets every new connection wait for `delay`.
    pub async fn start_slow(redis: &Redis, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let route = Route { socket: redis.socket(), delay, alive: CancellationToken::new() };
        let route = Arc::new(Mutex::new(route));
        let current = Arc::clone(&route);
        let (holds_replies, gate) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, delay, alive) = {
                    let route = current.lock().unwrap();
                    (route.socket.clone(), route.delay, route.alive.clone())
                };
                let gate = gate.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    let mut client = client;
                    if alive.run_until_cancelled(pass_on(&mut client, &mut server, gate)).await.is_none() {
                        // Keeps both ends open and does nothing with them.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, route, holds_replies }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// An estimator on the Redis behind it, for which so many may wait.
    pub fn estimator(&self, waiting: usize) -> Estimator {
        let limits = Limits { connect: PATIENCE, answer: PATIENCE, waiting };
        let url = RedisUrl::parse(&self.url()).unwrap();
        Estimator::new(Store::new(Connection::new(url, limits, Arc::default()).unwrap()), Window::parse("14d").unwrap())
    }

    /// From now on replies wait. Commands still reach Redis.
    pub fn hold_replies(&self) {
        self.holds_replies.send_replace(true);
    }

    /// The replies that waited go on.
    pub fn release_replies(&self) {
        self.holds_replies.send_replace(false);
    }

    /// All connections made so far go dead. New ones work.
    pub fn deaden_connections(&self) {
        std::mem::take(&mut self.route.lock().unwrap().alive).cancel();
    }

    /// New connections lead to another Redis. Those made so far stay where they are.
    pub fn lead_to(&self, redis: &Redis) {
        self.route.lock().unwrap().socket = redis.socket();
    }
}
