//! A primary, its replicas, and sentinels that promote a replica when the primary is lost.

use std::ops::Index;
use std::time::Instant;

use super::eventually;
use super::port::free_port;
use super::process::kill;
use super::redis::{Redis, engine_is_before};

/// Name of the primary in the sentinels' configuration.
pub const MASTER: &str = "mymaster";

/// Three sentinels of a primary and its replicas, each on a TCP port of 127.0.0.1. They end with the test.
///
/// Methods take and return the index of a server. Server 0 is the primary at first.
pub struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    /// Sentinels stopped by [`Self::freeze_one`].
    frozen: Vec<Server>,
}

struct Server {
    redis: Redis,
    port: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let own = ["--port", &port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
        Self { redis: Redis::start_with(&[&own, arguments].concat()), port }
    }

    fn start_sentinel(primary: &str) -> Self {
        let port = free_port();
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("sentinel monitor {MASTER} 127.0.0.1 {primary} 2"),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            // A failed election is repeated after twice this time.
            format!("sentinel failover-timeout {MASTER} 3000"),
        ];
        let redis = Redis::start_sentinel(&lines.join("\n"));
        let debug = [
            // Intervals of INFO, PING and HELLO in milliseconds. An old primary becomes a replica after four times the
            // last.
            ["INFO-PERIOD", "250"],
            ["ASK-PERIOD", "250"],
            ["PUBLISH-PERIOD", "250"],
            // By default a sentinel that was delayed for two seconds, as on a busy machine, pauses for half a minute.
            ["TILT-TRIGGER", "20000"],
        ];
        // Redis 6 has no such command, and takes longer.
        if !engine_is_before((7, 0)) {
            redis.call::<()>(&[&["SENTINEL", "DEBUG"][..], debug.as_flattened()].concat());
        }
        Self { redis, port }
    }
}

impl Sentinels {
    /// Starts a primary with two replicas.
    pub async fn start() -> Self {
        Self::start_with(2, &[]).await
    }

    /// Starts a primary with `replicas` replicas, and with these arguments for each server.
    pub async fn start_with(replicas: usize, arguments: &[&str]) -> Self {
        let primary = Server::start(arguments);
        let of_primary = ["--replicaof", "127.0.0.1", &primary.port];
        let replicas: Vec<_> = (0..replicas).map(|_| Server::start(&[&of_primary, arguments].concat())).collect();
        let servers: Vec<_> = std::iter::once(primary).chain(replicas).collect();
        // Before the sentinels, whose messages go to the replicas as well, so that these are always a bit behind.
        let caught_up = async || servers[0].redis.replicas() == servers.len() - 1;
        eventually("the replicas have caught up", caught_up).await;
        let sentinels = (0..3).map(|_| Server::start_sentinel(&servers[0].port)).collect();
        let all = Self { servers, sentinels, frozen: Vec::new() };
        all.wait_until_ok().await;
        all
    }

    /// Returns the URLs of the sentinels, separated by commas. Frozen ones come first.
    pub fn urls(&self) -> String {
        let sentinels = self.frozen.iter().chain(&self.sentinels);
        let urls: Vec<_> = sentinels.map(|one| format!("redis://127.0.0.1:{}", one.port)).collect();
        urls.join(",")
    }

    /// Stops one sentinel with SIGSTOP: it accepts connections and answers nothing. The other two are still a majority.
    pub fn freeze_one(&mut self) {
        let sentinel = self.sentinels.pop().expect("there are three");
        kill("-STOP", sentinel.redis.pid());
        self.frozen.push(sentinel);
    }

    /// Returns the primary according to the first sentinel.
    pub fn primary(&self) -> usize {
        self.primary_of(&self.sentinels[0])
    }

    /// Returns all servers but the primary.
    pub fn replicas(&self) -> impl Iterator<Item = &Redis> {
        let primary = self.primary();
        self.servers.iter().enumerate().filter(move |(number, _)| *number != primary).map(|(_, server)| &server.redis)
    }

    fn primary_of(&self, sentinel: &Server) -> usize {
        let (_, port): (String, String) = sentinel.redis.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        self.servers.iter().position(|server| server.port == port).expect("the sentinel names a server of this fixture")
    }

    /// Kills the primary and returns its index.
    pub fn kill_primary(&mut self) -> usize {
        let primary = self.primary();
        self.servers[primary].redis.stop();
        primary
    }

    /// Stops the primary with SIGSTOP and returns its index. Its connections stay open.
    pub fn pause_primary(&self) -> usize {
        let primary = self.primary();
        kill("-STOP", self[primary].pid());
        primary
    }

    pub fn resume(&self, server: usize) {
        kill("-CONT", self[server].pid());
    }

    /// Restarts a killed server on its files.
    pub fn start_again(&mut self, server: usize) {
        self.servers[server].redis.start_again();
    }

    /// Waits until all sentinels name the same primary other than `gone`, and it has that role. Returns the time.
    pub async fn wait_until_failed_over(&self, gone: usize) -> Instant {
        eventually("the sentinels name another primary", async || {
            let named: Vec<_> = self.sentinels.iter().map(|sentinel| self.primary_of(sentinel)).collect();
            named.iter().all(|&server| server != gone && server == named[0])
                && self.replication(named[0]).contains("role:master")
        })
        .await;
        Instant::now()
    }

    /// Waits until all servers but the primary replicate from it, and the sentinels know all servers and each other.
    pub async fn wait_until_ok(&self) {
        let replicas = self.servers.len() - 1;
        eventually("the primary has all replicas and the sentinels know them", async || {
            let primary = self.primary();
            let line = format!("status=ok,address=127.0.0.1:{},slaves={replicas},", self.servers[primary].port);
            let sentinels = format!("sentinels={}", self.sentinels.len());
            self.replication(primary).matches("state=online").count() == replicas
                && self.sentinels.iter().all(|sentinel| {
                    let info: String = sentinel.redis.call(&["INFO", "sentinel"]);
                    info.contains(&line) && info.contains(&sentinels)
                })
        })
        .await;
    }

    /// Returns `INFO replication` of a server, or nothing if a sentinel closes the connection because it changes the
    /// role.
    fn replication(&self, server: usize) -> String {
        self[server].try_call(&["INFO", "replication"]).unwrap_or_default()
    }
}

impl Index<usize> for Sentinels {
    type Output = Redis;

    fn index(&self, server: usize) -> &Redis {
        &self.servers[server].redis
    }
}
