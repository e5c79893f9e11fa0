//! A Redis Cluster.

mod slots;
mod view;

use std::ops::Index;
use std::time::Instant;

use self::view::View;
use super::eventually;
use super::port::free_port;
use super::process::kill;
use super::redis::{Redis, engine_is_before};

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// Cluster of Redis servers, each on a TCP port of 127.0.0.1. They end with the test.
///
/// Methods take and return the index of a node. The initial masters come first, then the replicas in the order of their
/// masters.
pub struct RedisCluster {
    nodes: Vec<Node>,
}

struct Node {
    redis: Redis,
    port: String,
    bus_port: String,
    id: String,
    /// False while the node is killed or paused.
    is_up: bool,
}

impl Node {
    fn start(arguments: &[&str]) -> Self {
        let (port, bus_port) = if engine_is_before((7, 0)) { ports_of_redis_6() } else { (free_port(), free_port()) };
        // Redis 6 always uses the port plus 10,000.
        let bus = if engine_is_before((7, 0)) { &[][..] } else { &["--cluster-port", &bus_port] };
        let own = [
            &["--port", &port, "--bind", "127.0.0.1", "--cluster-announce-ip", "127.0.0.1"],
            bus,
            &["--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0"],
            // The time until a silent node counts as failed. Two busy cores must not make it shorter.
            &["--cluster-node-timeout", "2000"],
        ];
        let redis = Redis::start_with(&[&own.concat(), arguments].concat());
        let id = redis.call(&["CLUSTER", "MYID"]);
        Self { redis, port, bus_port, id, is_up: true }
    }
}

/// Returns a port without a listener whose successor by 10,000 has none either.
fn ports_of_redis_6() -> (String, String) {
    loop {
        let port = free_port();
        let bus_port = port.parse::<u16>().unwrap() + 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", bus_port)).is_ok() {
            return (port, bus_port.to_string());
        }
    }
}

impl RedisCluster {
    /// Starts three masters with a replica each.
    pub async fn start() -> Self {
        Self::start_with(3, 1, &[]).await
    }

    /// Starts three masters with a replica each. A node fails after a minute of silence, so that a busy machine causes
    /// no failover.
    pub async fn start_without_failover(arguments: &[&str]) -> Self {
        Self::start_with(3, 1, &[&["--cluster-node-timeout", "60000"], arguments].concat()).await
    }

    /// Starts `masters` masters with `replicas` replicas each, and with these arguments for each node.
    pub async fn start_with(masters: usize, replicas: usize, arguments: &[&str]) -> Self {
        let nodes: Vec<_> = (0..masters * (1 + replicas)).map(|_| Node::start(arguments)).collect();
        for (epoch, node) in (1..).zip(&nodes) {
            node.redis.call::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &u32::to_string(&epoch)]);
        }
        for (number, master) in nodes[..masters].iter().enumerate() {
            let (first, last) = (SLOTS * number / masters, SLOTS * (number + 1) / masters - 1);
            // `ADDSLOTSRANGE` is of 7.0.
            let slots: Vec<_> = (first..=last).map(|slot| slot.to_string()).collect();
            let slots = slots.iter().map(String::as_str);
            master.redis.call::<()>(&["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>());
        }
        // Every node meets every other, since gossip would take seconds.
        for (number, node) in nodes.iter().enumerate() {
            for other in &nodes[number + 1..] {
                node.redis.call::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port, &other.bus_port]);
            }
        }
        let cluster = Self { nodes };
        eventually("all nodes know each other", async || {
            cluster.nodes_up().all(|node| cluster.nodes.iter().all(|other| View::of(node).knows(&other.id)))
        })
        .await;
        for (number, replica) in cluster.nodes[masters..].iter().enumerate() {
            replica.redis.call::<()>(&["CLUSTER", "REPLICATE", &cluster.nodes[number / replicas].id]);
        }
        cluster.wait_until_ok().await;
        eventually("the replicas have caught up", async || {
            cluster.nodes[..masters].iter().all(|master| master.redis.replicas() == replicas)
        })
        .await;
        cluster
    }

    /// Returns the URLs of all nodes, separated by commas.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port)).collect();
        urls.join(",")
    }

    /// Returns the nodes that have slots.
    pub fn masters(&self) -> Vec<usize> {
        let view = self.view();
        (0..self.nodes.len()).filter(|&node| view.has_slots(&self.nodes[node].id)).collect()
    }

    /// Returns the node that has the slot of `key`.
    pub fn master_of(&self, key: &str) -> usize {
        self.owner_of(self.slot_of(key))
    }

    /// Runs a command on the node that has the slot of `key`, and returns its reply.
    #[track_caller]
    pub fn call_where<T: ::redis::FromRedisValue>(&self, key: &str, command: &[&str]) -> T {
        self[self.master_of(key)].call(command)
    }

    /// Returns the members of a sorted set with their scores.
    pub fn members(&self, key: &str) -> Vec<(String, f64)> {
        self.call_where(key, &["ZRANGE", key, "0", "-1", "WITHSCORES"])
    }

    /// Returns all keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> =
            self.masters().into_iter().flat_map(|node| self[node].call::<Vec<String>>(&["KEYS", "*"])).collect();
        keys.sort();
        keys
    }

    /// Opens a connection to each master.
    pub fn connections(&self) -> Vec<::redis::Connection> {
        self.masters().into_iter().map(|node| self[node].connection()).collect()
    }

    /// Returns the number of calls of a command since `CONFIG RESETSTAT` for each master.
    pub fn calls(&self, command: &str) -> Vec<u64> {
        self.masters().into_iter().map(|node| self[node].calls(command)).collect()
    }

    /// Returns the number of errors with this code that the masters have answered.
    pub fn errors(&self, code: &str) -> u64 {
        self.masters().into_iter().map(|node| self[node].errors(code)).sum()
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].is_up = false;
        self.nodes[node].redis.stop();
    }

    /// Stops a node with SIGSTOP. Its connections stay open.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].is_up = false;
        kill("-STOP", self[node].pid());
    }

    pub fn resume(&mut self, node: usize) {
        kill("-CONT", self[node].pid());
        self.nodes[node].is_up = true;
    }

    /// Restarts a killed node on its files.
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].redis.start_again();
        self.nodes[node].is_up = true;
    }

    /// Kills all nodes with SIGKILL.
    pub fn kill_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }

    pub fn start_all_again(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start_again(node));
    }

    /// Returns the first replica of a master that is up.
    pub fn replica_of(&self, master: usize) -> usize {
        let replicas = View::of(&self.nodes[master]).replicas_of(&self.nodes[master].id);
        self.nodes.iter().position(|node| replicas.contains(&node.id)).expect("the master has a replica")
    }

    /// Promotes a replica of a master that is up, as an operator does before maintenance. Returns the replica.
    pub async fn fail_over_by_hand(&self, master: usize) -> usize {
        let replica = self.replica_of(master);
        self[replica].call::<()>(&["CLUSTER", "FAILOVER"]);
        eventually("all nodes know the new master", async || self.is_replaced(master)).await;
        replica
    }

    /// Waits until no node that is up assigns slots to the master `gone`. Returns the time.
    pub async fn wait_until_promoted(&self, gone: usize) -> Instant {
        eventually("a replica is promoted", async || self.is_replaced(gone)).await;
        Instant::now()
    }

    /// Returns whether no node that is up assigns slots to `master`.
    fn is_replaced(&self, master: usize) -> bool {
        let id = &self.nodes[master].id;
        self.nodes_up().all(|node| !View::of(node).has_slots(id))
    }

    /// Waits until all nodes that are up report a healthy cluster, and agree on its roles and slots.
    pub async fn wait_until_ok(&self) {
        eventually("the cluster is healthy", async || {
            let ids: Vec<_> = self.nodes_up().map(|node| node.id.as_str()).collect();
            let views: Vec<_> = self.nodes_up().map(View::of).collect();
            let is_agreed = views.iter().all(|view| view.is_healthy(&ids) && view.agrees(&views[0], &ids));
            is_agreed
                && self.nodes_up().all(|node| {
                    let [state, replication]: [String; 2] =
                        [&["CLUSTER", "INFO"], &["INFO", "replication"]].map(|command| node.redis.call(command));
                    state.contains("cluster_state:ok") && !replication.contains("master_link_status:down")
                })
        })
        .await;
    }

    /// Returns the cluster as the first node that is up sees it.
    fn view(&self) -> View {
        View::of(self.nodes_up().next().expect("a node is up"))
    }

    fn nodes_up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up)
    }
}

impl Index<usize> for RedisCluster {
    type Output = Redis;

    fn index(&self, node: usize) -> &Redis {
        &self.nodes[node].redis
    }
}
