//! Slots of a cluster and their migration.

use ::redis::Value;

use super::view::View;
use super::{Node, RedisCluster, eventually};

/// Starts an atomic migration of Valkey 9 and later.
const VALKEY_MIGRATION: &str = "cluster|migrateslots";
/// Starts an atomic migration of Redis 8.4 and later.
const REDIS_MIGRATION: &str = "cluster|migration";

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

    /// Returns whether [`Self::migrate_slots`] is atomic, so that no slot is half migrated.
    pub fn migrates_atomically(&self) -> bool {
        let node = &self.nodes[0];
        has_command(node, VALKEY_MIGRATION) || has_command(node, REDIS_MIGRATION)
    }

    /// Migrates slots, which have one owner, to another node: all of them atomically if the engine can, else one key at a
    /// time.
    pub async fn migrate_slots(&self, slots: &[u16], to: usize) {
        let (source, target) = (&self.nodes[self.owner_of(slots[0])], &self.nodes[to]);
        let ranges: Vec<_> = slots.iter().flat_map(|slot| [slot.to_string(), slot.to_string()]).collect();
        let ranges: Vec<_> = ranges.iter().map(String::as_str).collect();
        if has_command(source, VALKEY_MIGRATION) {
            let command = [&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"], &ranges[..], &["NODE", &target.id]];
            source.redis.call::<()>(&command.concat());
            eventually("Valkey has migrated the slots", async || {
                is_finished(&source.redis.call(&["CLUSTER", "GETSLOTMIGRATIONS"]), "success")
            })
            .await;
        } else if has_command(target, REDIS_MIGRATION) {
            let task: String = target.redis.call(&[&["CLUSTER", "MIGRATION", "IMPORT"], &ranges[..]].concat());
            eventually("Redis has migrated the slots", async || {
                is_finished(&target.redis.call(&["CLUSTER", "MIGRATION", "STATUS", "ID", &task]), "completed")
            })
            .await;
        } else {
            self.wait_until_pinged(self.owner_of(slots[0]), to).await;
            for &slot in slots {
                self.migrate_slot(slot, to, async |_| tokio::task::yield_now().await).await;
            }
        }
        self.wait_until_ok().await;
    }

    /// Waits until both nodes have answered a ping of the other one. Precedes the migration of a slot that was migrated
    /// before.
    ///
    /// Redis 7.0 keeps a mark on a slot whose owner, by an older message, doesn't claim it. `CLUSTER SETSLOT` leaves the
    /// mark, and a message in which the owner claims the slot removes it. If the slot comes back to a node before such a
    /// message, a late message of the previous owner takes it from the node again, whatever the epochs are: the two name
    /// each other as the owner forever, and the keys are lost.
    pub async fn wait_until_pinged(&self, one: usize, other: usize) {
        let [one, other] = [one, other].map(|node| &self.nodes[node]);
        let pongs = || [View::of(one).pong_received(&other.id), View::of(other).pong_received(&one.id)];
        let before = pongs();
        eventually("both nodes have pinged each other", async || {
            pongs().into_iter().zip(before).all(|(now, before)| now > before)
        })
        .await;
    }
}

/// Returns whether the server has a command. `COMMAND INFO` answers nil for one that it lacks.
fn has_command(node: &Node, name: &str) -> bool {
    // Before 7.0 it knows no subcommands.
    node.redis.try_call::<[Value; 1]>(&["COMMAND", "INFO", name]).is_ok_and(|[info]| info != Value::Nil)
}

/// Returns whether the list of migrations in `answer` has only those with the state `finished`.
#[track_caller]
fn is_finished(answer: &Value, finished: &str) -> bool {
    let text = format!("{answer:?}");
    assert!(!text.contains("failed"), "{text}");
    let states = text.matches("\"state\"").count();
    states > 0 && text.matches(&format!("\"{finished}\"")).count() == states
}

fn set_slot(node: &Node, slot: &str, state: &str, id: &str) {
    node.redis.call::<()>(&["CLUSTER", "SETSLOT", slot, state, id]);
}
