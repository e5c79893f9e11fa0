//! Where keys are in a cluster, and how they move.

use super::{Node, RedisCluster};

impl RedisCluster {
    /// The slot of `key`, or of the tag that stands in braces in it.
    pub fn slot_of(&self, key: &str) -> u16 {
        let node = self.answering().next().expect("a node answers");
        node.redis.call(&["CLUSTER", "KEYSLOT", key])
    }

    /// The node that has a slot now.
    pub fn owner_of(&self, slot: u16) -> usize {
        let view = self.view();
        let owner = view.owner(slot).unwrap_or_else(|| panic!("nobody has slot {slot}"));
        self.nodes.iter().position(|node| node.id == owner).unwrap()
    }

    /// Moves a slot to another node as `redis-cli --cluster reshard` does, one key at a time. Awaits `pause` before each key,
    /// with the number of keys moved so far: as long as it takes, the slot is half moved. Once more when all keys are there and
    /// the slot is not.
    pub async fn migrate_slot(&self, slot: u16, to: usize, pause: impl AsyncFn(usize)) {
        let from = self.owner_of(slot);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let number = slot.to_string();
        set_slot(target, &number, "IMPORTING", &source.id);
        set_slot(source, &number, "MIGRATING", &target.id);
        let mut moved = 0;
        loop {
            pause(moved).await;
            let keys: Vec<String> = source.redis.call(&["CLUSTER", "GETKEYSINSLOT", &number, "1"]);
            let Some(key) = keys.first() else { break };
            // Without REPLACE: a key that is there already would have been written in both places.
            let migrate = ["MIGRATE", "127.0.0.1", &target.port, "", "0", "30000", "KEYS", key];
            source.redis.call::<()>(&migrate);
            moved += 1;
        }
        // The new owner first: otherwise there would be a moment in which nobody is.
        let others = self.masters().into_iter().filter(|node| ![from, to].contains(node));
        for node in [to, from].into_iter().chain(others) {
            set_slot(&self.nodes[node], &number, "NODE", &target.id);
        }
    }
}

fn set_slot(node: &Node, slot: &str, state: &str, id: &str) {
    node.redis.call::<()>(&["CLUSTER", "SETSLOT", slot, state, id]);
}
