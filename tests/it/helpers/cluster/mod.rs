//! A Redis Cluster of the test's own.

mod slots;
mod view;

use std::ops::Index;
use std::time::Instant;

use self::view::View;
use super::eventually;
use super::port::free_port;
use super::process::kill;
use super::redis::Redis;

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// A cluster of Redis servers of the test's own, each on a TCP port of 127.0.0.1, which end with the test.
///
/// A node is named by its number. Those that are masters at first come first; the replicas follow, in the order of their masters.
pub struct RedisCluster {
    nodes: Vec<Node>,
}

struct Node {
    redis: Redis,
    port: String,
    bus_port: String,
    id: String,
    /// Whether it was neither killed nor paused.
    answers: bool,
}

impl Node {
    fn start(arguments: &[&str]) -> Self {
        let (port, bus_port) = (free_port(), free_port());
        let own = [
            &[
                "--port",
                &port,
                "--cluster-port",
                &bus_port,
                "--bind",
                "127.0.0.1",
                "--cluster-announce-ip",
                "127.0.0.1",
            ],
            &["--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0"][..],
            // A node that answers nothing for so long is taken for dead. On two busy cores others must not be.
            &["--cluster-node-timeout", "2000"],
        ];
        let redis = Redis::start_with(&[&own.concat(), arguments].concat());
        let id = redis.call(&["CLUSTER", "MYID"]);
        Self { redis, port, bus_port, id, answers: true }
    }
}

impl RedisCluster {
    /// Three masters with a replica each.
    pub async fn start() -> Self {
        Self::start_with(3, 1, &[]).await
    }

    /// As [`Self::start`], of nodes that nothing short of a minute makes take each other for dead: for tests without a failover.
    pub async fn start_patient(arguments: &[&str]) -> Self {
        Self::start_with(3, 1, &[&["--cluster-node-timeout", "60000"], arguments].concat()).await
    }

    /// So many masters, so many replicas of each, and further arguments for all of them.
    pub async fn start_with(masters: usize, replicas: usize, arguments: &[&str]) -> Self {
        let nodes: Vec<_> = (0..masters * (1 + replicas)).map(|_| Node::start(arguments)).collect();
        for (epoch, node) in (1..).zip(&nodes) {
            node.redis.call::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &u32::to_string(&epoch)]);
        }
        for (number, master) in nodes[..masters].iter().enumerate() {
            let (first, last) = (SLOTS * number / masters, SLOTS * (number + 1) / masters - 1);
            master.redis.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        // Each meets each: it would take them seconds to hear of one another by chance.
        for (number, node) in nodes.iter().enumerate() {
            for other in &nodes[number + 1..] {
                node.redis.call::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port, &other.bus_port]);
            }
        }
        let cluster = Self { nodes };
        eventually("all nodes know each other", async || {
            cluster.answering().all(|node| cluster.nodes.iter().all(|other| View::of(node).knows(&other.id)))
        })
        .await;
        for (number, replica) in cluster.nodes[masters..].iter().enumerate() {
            replica.redis.call::<()>(&["CLUSTER", "REPLICATE", &cluster.nodes[number / replicas].id]);
        }
        cluster.wait_until_ok().await;
        eventually("replicas are in step", async || {
            cluster.nodes[..masters].iter().all(|master| master.redis.replicas() == replicas)
        })
        .await;
        cluster
    }

    /// The URLs of all nodes, with commas between them.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port)).collect();
        urls.join(",")
    }

    /// The nodes that have slots now.
    pub fn masters(&self) -> Vec<usize> {
        let view = self.view();
        (0..self.nodes.len()).filter(|&node| view.has_slots(&self.nodes[node].id)).collect()
    }

    /// The node that has the slot of `key` now.
    pub fn master_of(&self, key: &str) -> usize {
        self.owner_of(self.slot_of(key))
    }

    /// Calls a command on the node that has `key`, and gives its answer.
    pub fn call_where<T: ::redis::FromRedisValue>(&self, key: &str, command: &[&str]) -> T {
        self[self.master_of(key)].call(command)
    }

    /// A sorted set: its members with their scores.
    pub fn members(&self, key: &str) -> Vec<(String, f64)> {
        self.call_where(key, &["ZRANGE", key, "0", "-1", "WITHSCORES"])
    }

    /// All keys, in their order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> =
            self.masters().into_iter().flat_map(|node| self[node].call::<Vec<String>>(&["KEYS", "*"])).collect();
        keys.sort();
        keys
    }

    /// A connection to each master, to look at all that is stored.
    pub fn connections(&self) -> Vec<::redis::Connection> {
        self.masters().into_iter().map(|node| self[node].connection()).collect()
    }

    /// How often each master was called with a command since `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> Vec<u64> {
        self.masters().into_iter().map(|node| self[node].calls(command)).collect()
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].answers = false;
        self.nodes[node].redis.stop();
    }

    /// Lets a node do nothing until it is resumed. Its connections stay.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].answers = false;
        kill("-STOP", self[node].pid());
    }

    pub fn resume(&mut self, node: usize) {
        kill("-CONT", self[node].pid());
        self.nodes[node].answers = true;
    }

    /// Starts a node that was killed again on its files.
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].redis.start_again();
        self.nodes[node].answers = true;
    }

    /// Ends all nodes as crashes would.
    pub fn kill_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }

    pub fn start_all_again(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start_again(node));
    }

    /// The first replica of a master that answers.
    pub fn replica_of(&self, master: usize) -> usize {
        let replicas = View::of(&self.nodes[master]).replicas_of(&self.nodes[master].id);
        self.nodes.iter().position(|node| replicas.contains(&node.id)).expect("it has a replica")
    }

    /// Has the replica of a master that answers take its place, as an operator would before maintenance.
    pub async fn fail_over_by_hand(&self, master: usize) -> usize {
        let replica = self.replica_of(master);
        self[replica].call::<()>(&["CLUSTER", "FAILOVER"]);
        eventually("the replica is a master everywhere", async || self.is_replaced(master)).await;
        replica
    }

    /// Waits until those that answer have all heard who took the place of a master, and says when that was.
    pub async fn wait_until_promoted(&self, gone: usize) -> Instant {
        eventually("a replica is promoted", async || self.is_replaced(gone)).await;
        Instant::now()
    }

    /// Whether nobody thinks that `master` has slots.
    fn is_replaced(&self, master: usize) -> bool {
        let id = &self.nodes[master].id;
        self.answering().all(|node| !View::of(node).has_slots(id))
    }

    /// Waits until those that answer say that all is well, with themselves and with each other, and agree on who has what.
    pub async fn wait_until_ok(&self) {
        eventually("the cluster is well", async || {
            let ids: Vec<_> = self.answering().map(|node| node.id.as_str()).collect();
            let views: Vec<_> = self.answering().map(View::of).collect();
            let they_agree = views.iter().all(|view| view.is_well(&ids) && view.agrees(&views[0], &ids));
            they_agree
                && self.answering().all(|node| {
                    let [state, replication]: [String; 2] =
                        [&["CLUSTER", "INFO"], &["INFO", "replication"]].map(|question| node.redis.call(question));
                    state.contains("cluster_state:ok") && !replication.contains("master_link_status:down")
                })
        })
        .await;
    }

    /// What the first node that answers knows.
    fn view(&self) -> View {
        View::of(self.answering().next().expect("a node answers"))
    }

    fn answering(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.answers)
    }
}

impl Index<usize> for RedisCluster {
    type Output = Redis;

    fn index(&self, node: usize) -> &Redis {
        &self.nodes[node].redis
    }
}
