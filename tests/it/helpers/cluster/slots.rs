//! Slots of a cluster and their migration.

use super::{Node, RedisCluster};

impl RedisCluster {
    /// Returns the slot of `key`.
    pub fn slot_of(&self, key: &str) -> u16 {
        let node = self.nodes_up().next().expect("a node is up");
        node.redis.call(&["CLUSTER", "KEYSLOT", key])
    }

    /// Returns the node that has a slot.
    pub fn owner_of(&self, slot: u16) -> usize {
        let view = self.view();
        let owner = view.owner(slot).unwrap_or_else(|| panic!("slot {slot} is not assigned"));
        self.nodes.iter().position(|node| node.id == owner).unwrap()
    }

    /// Migrates a slot to another node as `redis-cli --cluster reshard` does, one key at a time. Awaits `pause` before
    /// each key, with the number of keys migrated so far, while the slot is half migrated. Awaits it once more between
    /// the last key and the change of the owner.
    pub async fn migrate_slot(&self, slot: u16, to: usize, pause: impl AsyncFn(usize)) {
        let from = self.owner_of(slot);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let number = slot.to_string();
        set_slot(target, &number, "IMPORTING", &source.id);
        set_slot(source, &number, "MIGRATING", &target.id);
        let mut migrated = 0;
        loop {
            pause(migrated).await;
            let keys: Vec<String> = source.redis.call(&["CLUSTER", "GETKEYSINSLOT", &number, "1"]);
            let Some(key) = keys.first() else { break };
            // Without REPLACE: a key that is there already was written in both places, and the command fails.
            let migrate = ["MIGRATE", "127.0.0.1", &target.port, "", "0", "30000", "KEYS", key];
            source.redis.call::<()>(&migrate);
            migrated += 1;
        }
        // The new owner first. Otherwise the slot would have no owner for a moment.
        let others = self.masters().into_iter().filter(|node| ![from, to].contains(node));
        for node in [to, from].into_iter().chain(others) {
            set_slot(&self.nodes[node], &number, "NODE", &target.id);
        }
    }
}

fn set_slot(node: &Node, slot: &str, state: &str, id: &str) {
    node.redis.call::<()>(&["CLUSTER", "SETSLOT", slot, state, id]);
}
