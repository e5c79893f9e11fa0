//! The servers of a run, each on a free port of this machine: Redis, the service, webdis.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use segment_estimator::redis::MAX_LISTPACK_ENTRIES;

use crate::plan::Plan;
use crate::processes::{self, Process};
use crate::{Result, http, requests};

/// Returns a free address.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Creates the folder of a server.
fn folder_of(plan: &Plan, server: &str, address: SocketAddr) -> Result<PathBuf> {
    let folder = plan.folder.join(format!("{server}-{}", address.port()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A Redis, by default without files on disk.
pub struct Redis {
    pub address: SocketAddr,
    pub process: Process,
}

impl Redis {
    /// A Redis in memory.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::start_with(plan, &["--appendonly", "no"])
    }

    /// A Redis with these arguments. Otherwise it is set up like the private Redis of the service.
    pub fn start_with(plan: &Plan, arguments: &[&str]) -> Result<Self> {
        let address = free_address()?;
        let mut command = processes::command(&plan.redis_server);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
        command.args(["--zset-max-ziplist-entries", &MAX_LISTPACK_ENTRIES.to_string()]).args(arguments);
        let mut process = Process::start("redis", command, &folder_of(plan, "redis", address)?)?;
        let client = redis::Client::open(url(address))?;
        process.wait_until(|| {
            client.get_connection().is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
        })?;
        Ok(Self { address, process })
    }

    /// Calls a command and returns its answer.
    pub fn call<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut connection = redis::Client::open(url(self.address))?.get_connection()?;
        let mut call = redis::Cmd::new();
        for word in command {
            call.arg(word);
        }
        Ok(call.query(&mut connection)?)
    }

    /// Removes all data, synchronously.
    pub fn empty(&self) -> Result<()> {
        self.call(&["FLUSHALL", "SYNC"])
    }

    /// Returns a field of `INFO`.
    pub fn info(&self, field: &str) -> Result<String> {
        let info: String = self.call(&["INFO"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.ok_or_else(|| format!("INFO has no {field}"))?.to_owned())
    }

    /// Returns the number of members of all segments.
    pub fn members(&self) -> Result<u64> {
        (0..requests::SEGMENTS).map(|number| self.call::<u64>(&["ZCARD", &key(&requests::segment(number))])).sum()
    }
}

fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

/// The key of a segment: see the documentation of `segment_estimator::store`.
pub fn key(segment: &str) -> String {
    format!("segment:{segment}")
}

/// A prune schedule that doesn't fire during a run: the start of a year.
const NEVER: &str = "0 0 0 1 1 *";

/// The service, built with the release profile.
pub struct Service {
    pub address: SocketAddr,
    pub process: Process,
}

impl Service {
    /// The service on `redis` with the default settings, but for pruning.
    pub fn start(plan: &Plan, redis: &Redis) -> Result<Self> {
        Self::start_with(plan, redis, &[])
    }

    /// The service with these settings, too.
    pub fn start_with(plan: &Plan, redis: &Redis, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_binary(plan, redis, Path::new(env!("CARGO_BIN_EXE_segment-estimator")), settings)
    }

    /// The build that the run compares with, if there is one.
    pub fn start_baseline(plan: &Plan, redis: &Redis) -> Result<Option<Self>> {
        plan.baseline.as_deref().map(|binary| Self::start_binary(plan, redis, binary, &[])).transpose()
    }

    /// Another build of the service.
    fn start_binary(plan: &Plan, redis: &Redis, binary: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        // The loader writes a data set without a record, which the service would refuse.
        redis.call::<redis::Value>(&["SET", "layout", r#"{"epoch":1,"keys":"plain"}"#, "NX"])?;
        let address = free_address()?;
        let mut command = processes::command(binary);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ESTIMATOR_LISTEN", address.to_string()).env("ESTIMATOR_REDIS_URL", url(redis.address));
        // One plain command on a large segment blocks Redis for seconds, which must not cause answers of 503.
        command.env("ESTIMATOR_PRUNE_SCHEDULE", NEVER).env("ESTIMATOR_REDIS_TIMEOUT", "30s");
        command.envs(settings.iter().map(|(name, value)| (format!("ESTIMATOR_{name}"), value)));
        let mut process = Process::start("service", command, &folder_of(plan, "service", address)?)?;
        // Any answer shows that it has started: with a separate listener for probes it is 404.
        let request = requests::get("/readyz");
        process.wait_until(|| {
            http::ask(address, request.as_bytes()).is_ok_and(|answer| [200, 404].contains(&answer.status))
        })?;
        Ok(Self { address, process })
    }
}

/// The axum handler of [`crate::plain`], in a process of its own.
pub struct Plain {
    pub address: SocketAddr,
    pub process: Process,
}

impl Plain {
    /// The handler on `redis` with so many threads.
    pub fn start(plan: &Plan, redis: &Redis, threads: usize) -> Result<Self> {
        let address = free_address()?;
        let mut command = processes::command(std::env::current_exe()?);
        command.args(["--bench", "--serve-plain", &address.to_string(), "--on", &redis.address.to_string()]);
        command.args(["--threads", &threads.to_string()]);
        let mut process = Process::start("plain", command, &folder_of(plan, "plain", address)?)?;
        let request = requests::get("/segments/any/count");
        process.wait_until(|| http::ask(address, request.as_bytes()).is_ok_and(|answer| answer.status == 200))?;
        Ok(Self { address, process })
    }
}

/// webdis: HTTP in front of Redis, written in C, with one command per request.
pub struct Webdis {
    pub address: SocketAddr,
    pub process: Process,
}

impl Webdis {
    /// Starts webdis on `redis` with its default threads and pool, and without a log line for each request.
    pub fn start(plan: &Plan, redis: &Redis) -> Result<Self> {
        let address = free_address()?;
        let folder = folder_of(plan, "webdis", address)?;
        let settings = serde_json::json!({
            "redis_host": "127.0.0.1",
            "redis_port": redis.address.port(),
            "http_host": "127.0.0.1",
            "http_port": address.port(),
            "threads": 2,
            "daemonize": false,
            "database": 0,
            "verbosity": 0,
            "logfile": folder.join("log"),
        });
        fs::write(folder.join("webdis.json"), settings.to_string())?;
        let mut command = processes::command("webdis");
        command.arg("webdis.json");
        let mut process = Process::start("webdis", command, &folder)?;
        let request = requests::get("/PING");
        process.wait_until(|| http::ask(address, request.as_bytes()).is_ok_and(|answer| answer.status == 200))?;
        Ok(Self { address, process })
    }
}
