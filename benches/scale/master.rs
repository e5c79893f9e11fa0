//! One server that holds data: its process and its figures.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engine::{Kind, MASTERS, TIMEOUT};
use crate::plan::Plan;
use crate::processes::{self, Process};

/// A server that holds data.
pub struct Master {
    pub address: SocketAddr,
    pub process: Process,
    /// The port of the cluster bus.
    pub bus: String,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

/// The keys of a server, and their encoding.
#[derive(Clone, Copy, Default)]
pub struct Census {
    pub members: u64,
    pub keys: u64,
    /// Members of sets that are small enough for the server to keep as a list.
    pub listed: u64,
}

impl Master {
    /// Starts an empty server, which ends when it is dropped.
    pub fn start(plan: &Plan, kind: Kind) -> Result<Self> {
        // Both ports are bound until both are known; otherwise they could be the same.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = [free()?, free()?];
        let (address, bus) = (listeners[0].local_addr()?, listeners[1].local_addr()?.port().to_string());
        let port = address.port().to_string();
        let mut arguments = vec!["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes"];
        arguments.extend(["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]);
        if kind == Kind::Cluster {
            arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &bus]);
        }
        let arguments = arguments.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let folder = plan.folder.join(format!("server-{port}"));
        fs::create_dir_all(&folder)?;
        let program = kind.server(plan).to_owned();
        drop(listeners);
        let process = launch(&program, &arguments, &folder)?;
        Ok(Self { address, process, bus, program, arguments, folder })
    }

    /// Starts it again after [`Master::stop`].
    pub fn start_again(&mut self) -> Result<()> {
        self.process = launch(&self.program, &self.arguments, &self.folder)?;
        Ok(())
    }

    /// Stops it as an operator would.
    pub fn stop(&mut self) -> Result<()> {
        self.process.interrupt()?;
        let deadline = Instant::now() + TIMEOUT;
        while self.process.is_running()? {
            if Instant::now() > deadline {
                return Err("a server does not stop".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Returns its URL for the service.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Whether it has loaded its data and answers.
    pub fn is_ready(&self) -> bool {
        self.call::<String>(&["PING"]).is_ok()
    }

    /// Whether it serves its slots and knows all masters.
    pub fn is_in_cluster(&self) -> bool {
        let is = |field| self.call::<String>(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains(field));
        is("cluster_state:ok") && is(&format!("cluster_known_nodes:{MASTERS}"))
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(self.url())?.get_connection()?)
    }

    /// Calls a command and returns its answer.
    pub fn call<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut call = redis::Cmd::new();
        for word in command {
            call.arg(word);
        }
        Ok(call.query(&mut self.connect()?)?)
    }

    /// Returns a field of `INFO`.
    pub fn info(&self, field: &str) -> Result<String> {
        let info: String = self.call(&["INFO", "everything"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.ok_or_else(|| format!("INFO has no {field}"))?.to_owned())
    }

    /// Returns a numeric field of `INFO`.
    pub fn number(&self, field: &str) -> Result<f64> {
        Ok(self.info(field)?.parse()?)
    }

    /// Returns the number of `ZCOUNT`s so far, and their total microseconds.
    pub fn zcounts(&self) -> Result<(f64, f64)> {
        let Ok(line) = self.info("cmdstat_zcount") else { return Ok((0.0, 0.0)) };
        let number = |name: &str| {
            let value = line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            Ok::<f64, Box<dyn std::error::Error>>(value.ok_or("INFO has no times of ZCOUNT")?.parse()?)
        };
        Ok((number("calls")?, number("usec")?))
    }

    /// Examines every segment's key.
    pub fn census(&self) -> Result<Census> {
        let mut connection = self.connect()?;
        let (mut census, mut cursor) = (Census::default(), 0_u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("*segment[@:]*").arg("COUNT").arg(1_000);
            let (next, keys): (u64, Vec<String>) = scan.query(&mut connection)?;
            let mut questions = redis::pipe();
            for key in &keys {
                questions.cmd("ZCARD").arg(key).cmd("OBJECT").arg("ENCODING").arg(key);
            }
            let answers: Vec<redis::Value> = questions.query(&mut connection)?;
            for answer in answers.chunks(2) {
                let members: u64 = redis::from_redis_value(answer[0].clone())?;
                let encoding: String = redis::from_redis_value(answer[1].clone())?;
                census.members += members;
                census.keys += 1;
                census.listed += if encoding == "skiplist" { 0 } else { members };
            }
            cursor = next;
            if cursor == 0 {
                return Ok(census);
            }
        }
    }
}

/// Starts a server on the data in its folder.
fn launch(program: &Path, arguments: &[String], folder: &Path) -> Result<Process> {
    let mut command = processes::command(program);
    command.args(arguments);
    Process::start("server", command, folder)
}
