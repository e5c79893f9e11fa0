//! The engines that are compared: one server, or a cluster of three masters without replicas.
//!
//! All keep an append-only file with `appendfsync everysec`, and rewrite it only when they are told to: at which size a
//! server does so by itself would decide its load rate.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use segment_estimator::store::{Connection, Limits, RedisUrl, Store};

use crate::Result;
use crate::plan::Plan;
use crate::processes::{self, Process};

/// How long anything may take that has all data to go through.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Masters of a cluster.
const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// One Redis, one partition
    Redis,
    /// Three masters of Redis without replicas, 64 partitions
    Cluster,
    /// One Valkey, one partition
    Valkey,
}

impl Kind {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "one Redis",
            Self::Cluster => "cluster of 3",
            Self::Valkey => "one Valkey",
        }
    }

    /// The partitions of its data.
    pub fn partitions(self) -> u64 {
        match self {
            Self::Cluster => 64,
            Self::Redis | Self::Valkey => 1,
        }
    }

    /// The server's program.
    pub fn server(self, plan: &Plan) -> &Path {
        match self {
            Self::Valkey => &plan.valkey_server,
            Self::Redis | Self::Cluster => &plan.redis_server,
        }
    }
}

/// An engine that runs.
pub struct Engine {
    pub kind: Kind,
    pub masters: Vec<Master>,
}

/// A server that holds data.
pub struct Master {
    pub address: SocketAddr,
    pub process: Process,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

/// What there is in a server, and how it is kept.
#[derive(Clone, Copy, Default)]
pub struct Census {
    pub members: u64,
    pub keys: u64,
    /// Members of sets so small that the server keeps them as a list.
    pub listed: u64,
}

impl Engine {
    /// Starts one without data. It ends when it is dropped.
    pub fn start(plan: &Plan, kind: Kind) -> Result<Self> {
        let masters = if kind == Kind::Cluster { MASTERS } else { 1 };
        let masters = (0..masters).map(|_| Master::start(plan, kind)).collect::<Result<_>>()?;
        let mut engine = Self { kind, masters };
        engine.wait_until(Master::is_ready)?;
        if kind == Kind::Cluster {
            engine.form_cluster()?;
        }
        Ok(engine)
    }

    /// Lays the slots as `redis-cli --cluster create` does, and has the masters know each other.
    fn form_cluster(&mut self) -> Result<()> {
        let first = &self.masters[0];
        let bound = |number: usize| (number * SLOTS).div_ceil(MASTERS);
        for (master, number) in self.masters.iter().zip(0..) {
            let [begin, end] = [bound(number), bound(number + 1) - 1].map(|slot| slot.to_string());
            master.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", &begin, &end])?;
            master.call::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for master in &self.masters[1..] {
            let bus = master.bus()?;
            let [host, port] = [master.address.ip().to_string(), master.address.port().to_string()];
            first.call::<()>(&["CLUSTER", "MEET", &host, &port, &bus])?;
        }
        self.wait_until(Master::is_in_cluster)
    }

    /// The service's store on this engine. Only here is it said how an engine is reached.
    pub fn store(&self) -> Result<Store> {
        let limits = Limits { connect: Duration::from_secs(5), answer: Duration::from_secs(60), waiting: 10_000 };
        let urls = self.masters.iter().map(|master| RedisUrl::parse(&master.url()));
        let urls = urls.collect::<std::result::Result<Vec<_>, _>>()?;
        match self.kind {
            Kind::Redis | Kind::Valkey => Ok(Store::new(Connection::new(urls[0].clone(), limits, Arc::default())?)),
            // As soon as the store has clusters: on all of `urls`, with `self.kind.partitions()`.
            Kind::Cluster => Err("the service's store can't reach a cluster yet".into()),
        }
    }

    /// Waits until `is_so` of every master, and fails when one ends before that.
    fn wait_until(&mut self, is_so: impl Fn(&Master) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for master in &mut self.masters {
            while !is_so(master) {
                if !master.process.is_running()? || Instant::now() > deadline {
                    return Err(format!("a server has not become ready:\n{}", master.process.output()?).into());
                }
                sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Ends all masters and starts them again, and says how long it was from the start until all answer with all data.
    pub fn restart(&mut self) -> Result<Duration> {
        for master in &mut self.masters {
            master.stop()?;
        }
        let started = Instant::now();
        for master in &mut self.masters {
            master.process = master.launch()?;
        }
        self.wait_until(Master::is_ready)?;
        if self.kind == Kind::Cluster {
            self.wait_until(Master::is_in_cluster)?;
        }
        Ok(started.elapsed())
    }

    /// Rewrites the append-only files, all at once, and says how long that took.
    pub fn rewrite(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for master in &self.masters {
            master.call::<redis::Value>(&["BGREWRITEAOF"])?;
        }
        self.wait_until(|master| {
            let is = |field, value| master.info(field).is_ok_and(|found| found == value);
            is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0")
        })?;
        let took = started.elapsed();
        for master in &self.masters {
            let status = master.info("aof_last_bgrewrite_status")?;
            if status != "ok" {
                return Err(format!("a rewrite of the append-only file ended with {status}").into());
            }
        }
        Ok(took)
    }

    /// What `figure` is for each master.
    pub fn each<T>(&self, figure: impl Fn(&Master) -> Result<T>) -> Result<Vec<T>> {
        self.masters.iter().map(figure).collect()
    }

    /// `used_memory` of each master in bytes, once it stays within a few kilobytes: a server frees the buffers of a connection that
    /// has been idle for two seconds.
    pub fn settled_memory(&self) -> Result<Vec<f64>> {
        let deadline = Instant::now() + PATIENCE;
        sleep(Duration::from_secs(3));
        let mut last = self.each(|master| master.number("used_memory"))?;
        while Instant::now() < deadline {
            sleep(Duration::from_secs(1));
            let now = self.each(|master| master.number("used_memory"))?;
            if now.iter().zip(&last).all(|(now, last)| (now - last).abs() < 65_536.0) {
                return Ok(now);
            }
            last = now;
        }
        Err("a server's memory does not settle".into())
    }
}

impl Master {
    fn start(plan: &Plan, kind: Kind) -> Result<Self> {
        // Both are held until both are known, or they could be the same.
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [address, bus] = listeners.each_ref().map(|listener| listener.as_ref().map(TcpListener::local_addr));
        let (address, bus) = (address.map_err(ToString::to_string)??, bus.map_err(ToString::to_string)??);
        drop(listeners);
        let port = address.port().to_string();
        let mut arguments = vec!["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes"];
        arguments.extend(["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]);
        let bus = bus.port().to_string();
        if kind == Kind::Cluster {
            arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &bus]);
        }
        let folder = plan.folder.join(format!("server-{port}"));
        fs::create_dir_all(&folder)?;
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let program = kind.server(plan).to_owned();
        let process = launch(&program, &arguments, &folder)?;
        Ok(Self { address, process, program, arguments, folder })
    }

    fn launch(&self) -> Result<Process> {
        launch(&self.program, &self.arguments, &self.folder)
    }

    fn stop(&mut self) -> Result<()> {
        self.process.interrupt()?;
        let deadline = Instant::now() + PATIENCE;
        while self.process.is_running()? {
            if Instant::now() > deadline {
                return Err("a server does not stop".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Where it is, for the service.
    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn bus(&self) -> Result<String> {
        let at = self.arguments.iter().position(|argument| argument == "--cluster-port");
        Ok(at.and_then(|at| self.arguments.get(at + 1)).ok_or("a server is in no cluster")?.clone())
    }

    /// Answers, and has read all its data.
    fn is_ready(&self) -> bool {
        self.call::<String>(&["PING"]).is_ok()
    }

    /// Answers for its slots, and knows all masters.
    fn is_in_cluster(&self) -> bool {
        let is = |field| self.call::<String>(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains(field));
        is("cluster_state:ok") && is(&format!("cluster_known_nodes:{MASTERS}"))
    }

    /// A connection to it.
    pub fn connect(&self) -> Result<redis::Connection> {
        Ok(redis::Client::open(self.url())?.get_connection()?)
    }

    /// Calls a command and gives its answer.
    fn call<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut call = redis::Cmd::new();
        for word in command {
            call.arg(word);
        }
        Ok(call.query(&mut self.connect()?)?)
    }

    /// A field of `INFO`.
    fn info(&self, field: &str) -> Result<String> {
        let info: String = self.call(&["INFO", "everything"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.ok_or_else(|| format!("INFO has no {field}"))?.to_owned())
    }

    /// A field of `INFO` that is a number.
    pub fn number(&self, field: &str) -> Result<f64> {
        Ok(self.info(field)?.parse()?)
    }

    /// How many `ZCOUNT`s it has answered, and how many microseconds it took for all.
    pub fn zcounts(&self) -> Result<(f64, f64)> {
        let Ok(line) = self.info("cmdstat_zcount") else { return Ok((0.0, 0.0)) };
        let number = |name: &str| {
            let value = line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            Ok::<f64, Box<dyn std::error::Error>>(value.ok_or("INFO tells no times of ZCOUNT")?.parse()?)
        };
        Ok((number("calls")?, number("usec")?))
    }

    /// Looks at every segment's key.
    pub fn census(&self) -> Result<Census> {
        let mut connection = self.connect()?;
        let (mut census, mut cursor) = (Census::default(), 0_u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("*segment:*").arg("COUNT").arg(1_000);
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

/// Starts a server that goes on with what its folder has.
fn launch(program: &Path, arguments: &[String], folder: &Path) -> Result<Process> {
    let mut command = processes::command(program);
    command.args(arguments);
    Process::start("server", command, folder)
}
