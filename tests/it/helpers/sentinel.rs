//! A primary, its replicas, and the sentinels that choose another when it is gone.

use std::ops::Index;
use std::time::Instant;

use super::eventually;
use super::port::free_port;
use super::process::kill;
use super::redis::Redis;

/// What the sentinels call it.
pub const MASTER: &str = "mymaster";

/// Three sentinels of a primary and its replicas, each on a TCP port of 127.0.0.1, which end with the test.
///
/// A server is named by its number. The first is the primary at first.
pub struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    /// Sentinels that do nothing.
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
            // Who fails to be elected tries again after twice that.
            format!("sentinel failover-timeout {MASTER} 3000"),
        ];
        let redis = Redis::start_sentinel(&lines.join("\n"));
        let debug = [
            // How often, in milliseconds, it asks servers and other sentinels, and tells these of itself. An old primary becomes a
            // replica after four times the last.
            ["INFO-PERIOD", "250"],
            ["ASK-PERIOD", "250"],
            ["PUBLISH-PERIOD", "250"],
            // By default it does nothing for half a minute when it was held up for two seconds, as on a busy machine.
            ["TILT-TRIGGER", "20000"],
        ];
        redis.call::<()>(&[&["SENTINEL", "DEBUG"][..], debug.as_flattened()].concat());
        Self { redis, port }
    }
}

impl Sentinels {
    /// A primary with two replicas.
    pub async fn start() -> Self {
        Self::start_with(2, &[]).await
    }

    /// A primary with so many replicas, and further arguments for all of them.
    pub async fn start_with(replicas: usize, arguments: &[&str]) -> Self {
        let primary = Server::start(arguments);
        let of_primary = ["--replicaof", "127.0.0.1", &primary.port];
        let replicas: Vec<_> = (0..replicas).map(|_| Server::start(&[&of_primary, arguments].concat())).collect();
        let sentinels = (0..3).map(|_| Server::start_sentinel(&primary.port)).collect();
        let servers: Vec<_> = std::iter::once(primary).chain(replicas).collect();
        let all = Self { servers, sentinels, frozen: Vec::new() };
        eventually("replicas are in step", async || all[0].replicas() == all.servers.len() - 1).await;
        all.wait_until_ok().await;
        all
    }

    /// The URLs of the sentinels, with commas between them. One that is frozen comes first.
    pub fn urls(&self) -> String {
        let sentinels = self.frozen.iter().chain(&self.sentinels);
        let urls: Vec<_> = sentinels.map(|one| format!("redis://127.0.0.1:{}", one.port)).collect();
        urls.join(",")
    }

    /// Lets one sentinel do nothing from now on: it takes connections, and says nothing. The others are a majority still.
    pub fn freeze_one(&mut self) {
        let sentinel = self.sentinels.pop().expect("there are three");
        kill("-STOP", sentinel.redis.pid());
        self.frozen.push(sentinel);
    }

    /// The server that the first sentinel names as the primary.
    pub fn primary(&self) -> usize {
        self.named_by(&self.sentinels[0])
    }

    /// All servers but the primary.
    pub fn replicas(&self) -> impl Iterator<Item = &Redis> {
        let primary = self.primary();
        self.servers.iter().enumerate().filter(move |(number, _)| *number != primary).map(|(_, server)| &server.redis)
    }

    fn named_by(&self, sentinel: &Server) -> usize {
        let (_, port): (String, String) = sentinel.redis.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        self.servers.iter().position(|server| server.port == port).expect("it is one of ours")
    }

    /// Ends the primary as a crash would, and says which server it was.
    pub fn kill_primary(&mut self) -> usize {
        let primary = self.primary();
        self.servers[primary].redis.stop();
        primary
    }

    /// Lets the primary do nothing until it is resumed, and says which server it is. Its connections stay.
    pub fn pause_primary(&self) -> usize {
        let primary = self.primary();
        kill("-STOP", self[primary].pid());
        primary
    }

    pub fn resume(&self, server: usize) {
        kill("-CONT", self[server].pid());
    }

    /// Starts a server that was killed again on its files.
    pub fn start_again(&mut self, server: usize) {
        self.servers[server].redis.start_again();
    }

    /// Waits until every sentinel names another primary than `gone` and that one is one, and says when that was.
    pub async fn wait_until_failed_over(&self, gone: usize) -> Instant {
        eventually("another primary is named", async || {
            let named: Vec<_> = self.sentinels.iter().map(|sentinel| self.named_by(sentinel)).collect();
            named.iter().all(|&server| server != gone && server == named[0])
                && self.replication(named[0]).contains("role:master")
        })
        .await;
        Instant::now()
    }

    /// Waits until all servers but the primary are replicas of it, and the sentinels know all servers and each other.
    pub async fn wait_until_ok(&self) {
        let replicas = self.servers.len() - 1;
        eventually("all replicas are the primary's, and known", async || {
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

    /// What a server says of its replication: nothing, when sentinels close its connections, since it gets another place.
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
