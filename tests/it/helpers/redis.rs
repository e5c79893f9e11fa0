//! A Redis server.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use segment_estimator::domain::Window;
use segment_estimator::estimator::Estimator;
use segment_estimator::redis::{Client, Limits, RedisUrl};
use segment_estimator::store::Store;
use tempfile::TempDir;

use super::TIMEOUT;

/// Finds the server that the tests run on. `scripts/with-redis` puts that of `REDIS_SERVER` first on `PATH`.
const FIND_SERVER: &str = "server=$(command -v redis-server || command -v valkey-server) || exit";

/// Returns whether the version of the engine is before `version`. A fixture needs to know before it starts a server.
pub(super) fn engine_is_before(version: (u32, u32)) -> bool {
    static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
        let print = format!("{FIND_SERVER}; exec \"$server\" --version");
        let output = Command::new("sh").args(["-c", &print]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split(" v=").nth(1).unwrap().split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    });
    *VERSION < version
}

/// Redis server on a Unix socket. It ends with the test.
pub struct Redis {
    folder: TempDir,
    arguments: Vec<String>,
    process: Child,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with these arguments after the default ones.
    pub fn start_with(arguments: &[&str]) -> Self {
        let own = ["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "no"];
        Self::start_in(tempfile::tempdir().unwrap(), &[&own, arguments].concat())
    }

    /// Starts a server that permits `DEBUG`. Those before 7.0 do without a setting, and refuse the setting.
    pub fn start_with_debug_command() -> Self {
        let permit = ["--enable-debug-command", "local"];
        Self::start_with(if engine_is_before((7, 0)) { &[] } else { &permit })
    }

    /// Starts a sentinel with `configuration` in its file, which it rewrites.
    pub fn start_sentinel(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sentinel.conf"), configuration).unwrap();
        Self::start_in(folder, &["sentinel.conf", "--sentinel"])
    }

    fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let process = Self::spawn(folder.path(), arguments);
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { folder, arguments, process };
        redis.wait_until_loaded();
        redis
    }

    /// Starts a primary that replicas reach on the TCP port `port`.
    pub fn start_primary(port: &str) -> Self {
        // By default a primary waits five seconds for more replicas before it sends its data.
        Self::start_with(&["--port", port, "--repl-diskless-sync-delay", "0"])
    }

    /// Starts a replica of the primary on `port`. It may not have caught up yet.
    pub fn start_replica(port: &str) -> Self {
        Self::start_with(&["--replicaof", "127.0.0.1", port, "--appendfsync", "always"])
    }

    fn spawn(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Child {
        // Without SIGXFSZ a file at its size limit fails writes, as a full disk does, instead of ending Redis.
        let run = format!("{FIND_SERVER}; trap '' XFSZ; exec \"$server\" \"$@\"");
        Command::new("sh")
            .args(["-c", &run, "redis"])
            .args(arguments)
            .args(["--unixsocket", "redis.sock", "--logfile", "redis.log"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Returns whether Redis answers LOADING.
    pub fn is_loading(&self) -> bool {
        self.try_connect().is_some_and(|mut connection| {
            let reply = ::redis::cmd("PING").exec(&mut connection);
            reply.is_err_and(|error| error.code() == Some("LOADING"))
        })
    }

    /// Waits for any reply but LOADING. NOAUTH is one, too.
    #[track_caller]
    pub fn wait_until_loaded(&mut self) {
        self.wait_until(|reply| reply.is_none_or(|code| code != "LOADING"));
    }

    /// Waits for a reply to `PING` that `accepts` takes by its error code, which is `None` for a reply without an
    /// error.
    #[track_caller]
    fn wait_until(&mut self, accepts: impl Fn(Option<&str>) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.try_connect().is_some_and(|mut connection| {
            let reply = ::redis::cmd("PING").exec(&mut connection);
            match &reply {
                Err(error) if error.is_io_error() => false,
                Err(error) => accepts(error.code()),
                Ok(()) => accepts(None),
            }
        }) {
            assert!(Instant::now() < deadline, "no reply from Redis within {TIMEOUT:?}");
            assert!(self.process.try_wait().unwrap().is_none(), "Redis has ended; is redis-server installed?");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn try_connect(&self) -> Option<::redis::Connection> {
        ::redis::Client::open(self.url()).unwrap().get_connection().ok()
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Runs a command and returns its reply.
    #[track_caller]
    pub fn call<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_call(command).unwrap()
    }

    /// Runs a command on a server that may close its connections at the same time.
    pub fn try_call<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> ::redis::RedisResult<T> {
        let mut connection = ::redis::Client::open(self.url())?.get_connection()?;
        let mut call = ::redis::Cmd::new();
        for word in command {
            call.arg(word);
        }
        call.query(&mut connection)
    }

    /// Writes the layout record of a data set with one partition unless there is a record. Tests may write the keys
    /// themselves then.
    pub fn record_data_set(&self) {
        self.call::<()>(&["SET", "layout", r#"{"epoch":1,"keys":"plain","window_seconds":1}"#, "NX"]);
    }

    /// Opens a connection.
    pub fn connection(&self) -> ::redis::Connection {
        self.try_connect().expect("connects to Redis")
    }

    /// Returns the keys of all sorted sets.
    pub fn sets(&self) -> Vec<String> {
        let keys: Vec<String> = self.call(&["KEYS", "*"]);
        keys.into_iter().filter(|key| self.call::<String>(&["TYPE", key]) == "zset").collect()
    }

    /// Returns the number of replicas that have acknowledged the whole replication stream.
    pub fn replicas(&self) -> usize {
        let info: String = self.call(&["INFO", "replication"]);
        let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap();
        info.lines().filter(|line| line.contains(&format!("state=online,offset={offset},"))).count()
    }

    /// Returns the number of clients that are blocked in a command such as `WAIT`.
    pub fn blocked_clients(&self) -> usize {
        let info: String = self.call(&["INFO", "clients"]);
        info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).unwrap().parse().unwrap()
    }

    /// Returns whether this version has `WAITAOF`.
    pub fn has_wait_aof(&self) -> bool {
        let info: String = self.call(&["INFO", "server"]);
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1]) >= (7, 2)
    }

    /// Returns the ACL rules for commands that not all versions know. With `CLIENT SETINFO` the service names itself.
    /// Redis 7.0 refuses a rule for it, and Redis 6 takes any subcommand.
    pub fn acl_rules_of_the_version(&self) -> Vec<&'static str> {
        let [info]: [::redis::Value; 1] = self.call(&["COMMAND", "INFO", "client|setinfo"]);
        let is_refused = info == ::redis::Value::Nil && !engine_is_before((7, 0));
        if is_refused { Vec::new() } else { vec!["+client|setinfo"] }
    }

    /// Returns whether the server has `ACL DRYRUN`, which is of 7.0.
    pub fn has_acl_dry_run(&self) -> bool {
        self.try_call::<String>(&["ACL", "DRYRUN", "default", "PING"]).is_ok()
    }

    /// Returns the number of calls of a command since `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.call(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// Returns the number of errors with this code that Redis has answered since `CONFIG RESETSTAT`.
    pub fn errors(&self, code: &str) -> u64 {
        let stats: String = self.call(&["INFO", "errorstats"]);
        let count = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{code}:count=")));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// Returns the commands that Redis runs from now on, as `MONITOR` shows them.
    #[track_caller]
    pub fn monitor(&self) -> impl Iterator<Item = String> + Send + 'static {
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        lines
    }

    /// Stops the replication to this replica. (A paused replica would find the missing commands in its socket
    /// afterwards.)
    pub fn stop_replication(&self) {
        self.call::<()>(&["CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong"]);
        self.call::<()>(&["CLIENT", "KILL", "TYPE", "master"]);
    }

    /// Resumes the replication to this replica.
    pub fn resume_replication(&self) {
        self.call::<()>(&["CONFIG", "SET", "masteruser", "", "masterauth", ""]);
    }

    /// Kills Redis with SIGKILL.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Restarts Redis on its files, and waits until it has loaded them and a request to a service must succeed.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Self::spawn(self.folder.path(), &self.arguments);
        self.wait_until_loaded();
        // A service whose last connect failed answers requests with that failure for 50 ms
        // (`Connection::RECONNECT_PAUSE`). A heartbeat may have failed just before Redis had loaded its files.
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Restarts Redis with these arguments after the previous ones, and waits for any reply, LOADING included.
    #[track_caller]
    pub fn start_again_with(&mut self, arguments: &[&str]) {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.process = Self::spawn(self.folder.path(), &arguments);
        self.wait_until(|_| true);
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns an estimator on this Redis, without HTTP.
    pub fn estimator(&self, window: &str) -> Estimator {
        Estimator::new(self.store(), Window::parse(window).unwrap())
    }

    /// Adds `members` with their scores to the segment `sports` of one partition.
    pub fn fill(&self, members: impl Iterator<Item = (f64, String)>) {
        let mut connection = self.connection();
        for chunk in members.collect::<Vec<_>>().chunks(10_000) {
            let mut command = redis::cmd("ZADD");
            command.arg("segment:sports");
            for (score, name) in chunk {
                command.arg(score).arg(name);
            }
            command.exec(&mut connection).unwrap();
        }
    }

    pub fn store(&self) -> Store {
        let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 10_000 };
        Store::new(Client::new(RedisUrl::parse(&self.url()).unwrap(), limits, Arc::default()).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
