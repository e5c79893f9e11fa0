//! The cluster that tests have: that it does what they take for granted.

use crate::helpers::{RedisCluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_with_its_keys_and_is_in_two_places_meanwhile() {
    let cluster = RedisCluster::start_patient(&[]).await;
    let slot = cluster.slot_of("{p03}");
    let (from, key) = (cluster.owner_of(slot), |name: &str| format!("{{p03}}:segment:{name}"));
    let names = ["a", "b", "c"].map(key);
    for name in &names {
        cluster[from].call::<()>(&["ZADD", name, "1", "u1"]);
    }
    let to = cluster.masters().into_iter().find(|&node| node != from).unwrap();
    let in_slot = |node: usize| cluster[node].call::<usize>(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
    cluster.migrate_slot(slot, to, async |moved| assert_eq!((in_slot(from), in_slot(to)), (3 - moved, moved))).await;
    assert_eq!(cluster.owner_of(slot), to);
    assert_eq!(cluster.members(&names[0]), [("u1".to_owned(), 1.0)]);
    assert_eq!(cluster.keys(), names);
    cluster.wait_until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_the_place_of_a_master_that_is_killed_and_gives_it_back() {
    let mut cluster = RedisCluster::start().await;
    let master = cluster.master_of("key");
    cluster[master].call::<()>(&["SET", "key", "value"]);
    eventually("the replica has it", async || cluster[master].replicas() == 1).await;
    cluster.kill(master);
    cluster.wait_until_promoted(master).await;
    let other = cluster.master_of("key");
    assert_ne!(other, master);
    cluster.start_again(master);
    cluster.wait_until_ok().await;
    assert_eq!(cluster.call_where::<String>("key", &["GET", "key"]), "value");
    assert_eq!(cluster.fail_over_by_hand(other).await, master);
    assert_eq!(cluster.master_of("key"), master);
}
