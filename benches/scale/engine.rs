//! The compared engines: one server, with bounded segments or without, or a cluster of three masters without replicas.
//!
//! All keep an append-only file with `appendfsync everysec`, and rewrite it only on command: an automatic rewrite would
//! distort the load rate.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use segment_estimator::redis::{Client, Deployment, Limits, RedisUrl};
use segment_estimator::store::{Partitions, Store};

use crate::master::Master;
use crate::plan::Plan;
use crate::{Result, bounded};

/// The timeout of operations on all data.
pub const TIMEOUT: Duration = Duration::from_secs(1_800);
/// Masters of a cluster.
pub const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// A compared engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// One Redis, one partition
    Redis,
    /// One Redis, one partition, bounded segments
    Bounded,
    /// Three masters of Redis without replicas, 64 partitions
    Cluster,
    /// One Valkey, one partition
    Valkey,
}

impl Kind {
    /// Returns the name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "one Redis",
            Self::Bounded => "bounded, one Redis",
            Self::Cluster => "cluster of 3",
            Self::Valkey => "one Valkey",
        }
    }

    /// Returns the number of partitions.
    pub fn partitions(self) -> u64 {
        match self {
            Self::Cluster => 64,
            Self::Redis | Self::Bounded | Self::Valkey => 1,
        }
    }

    /// Returns the server's program.
    pub fn server(self, plan: &Plan) -> &Path {
        match self {
            Self::Valkey => &plan.valkey_server,
            Self::Redis | Self::Bounded | Self::Cluster => &plan.redis_server,
        }
    }
}

/// A running engine.
pub struct Engine {
    pub kind: Kind,
    pub masters: Vec<Master>,
}

/// Seconds from the start of the servers.
#[derive(Clone, Copy)]
pub struct Restart {
    /// Until all have loaded their data.
    pub read: f64,
    /// Until all serve it. A restarted master of a cluster waits for two seconds.
    pub whole: f64,
}

impl Engine {
    /// Starts an empty engine, which ends when it is dropped.
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

    /// Distributes the slots as `redis-cli --cluster create` does, and joins the masters.
    fn form_cluster(&mut self) -> Result<()> {
        let first = &self.masters[0];
        let bound = |number: usize| (number * SLOTS + MASTERS / 2) / MASTERS;
        for (master, number) in self.masters.iter().zip(0..) {
            let [begin, end] = [bound(number), bound(number + 1) - 1].map(|slot| slot.to_string());
            master.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", &begin, &end])?;
            master.call::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for master in &self.masters[1..] {
            let [host, port] = [master.address.ip().to_string(), master.address.port().to_string()];
            first.call::<()>(&["CLUSTER", "MEET", &host, &port, &master.bus])?;
        }
        self.wait_until(Master::is_in_cluster)
    }

    /// Returns the service's store on this engine.
    pub fn store(&self) -> Result<Store> {
        let limits = Limits { connect: Duration::from_secs(5), answer: Duration::from_secs(60), max_pending: 10_000 };
        let urls = self.masters.iter().map(|master| RedisUrl::parse(&master.url()));
        let mut urls = urls.collect::<std::result::Result<Vec<_>, _>>()?;
        let deployment = match self.kind {
            Kind::Redis | Kind::Bounded | Kind::Valkey => Deployment::One(urls.swap_remove(0)),
            Kind::Cluster => Deployment::Cluster(urls),
        };
        let partitions = Partitions::parse(&self.kind.partitions().to_string())?;
        let max_members = if self.kind == Kind::Bounded { Some(bounded::max_members()?) } else { None };
        let store = Store::new(Client::new(deployment, limits, Arc::default())?);
        Ok(store.with_partitions(Some(partitions)).with_max_members(max_members))
    }

    /// Waits until `is_so` holds for every master. Fails if one ends before.
    fn wait_until(&mut self, is_so: impl Fn(&Master) -> bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
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

    /// Restarts all masters.
    pub fn restart(&mut self) -> Result<Restart> {
        for master in &mut self.masters {
            master.stop()?;
        }
        let started = Instant::now();
        for master in &mut self.masters {
            master.start_again()?;
        }
        self.wait_until(Master::is_ready)?;
        let read = started.elapsed().as_secs_f64();
        if self.kind == Kind::Cluster {
            self.wait_until(Master::is_in_cluster)?;
        }
        Ok(Restart { read, whole: started.elapsed().as_secs_f64() })
    }

    /// Rewrites all append-only files at once. Returns the seconds.
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

    /// Returns `figure` for each master.
    pub fn each<T>(&self, figure: impl Fn(&Master) -> Result<T>) -> Result<Vec<T>> {
        self.masters.iter().map(figure).collect()
    }

    /// Returns `used_memory` of each master in bytes, after it has settled within a few kilobytes: a server frees the
    /// buffers of a connection that has been idle for two seconds.
    pub fn settled_memory(&self) -> Result<Vec<f64>> {
        let deadline = Instant::now() + TIMEOUT;
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
