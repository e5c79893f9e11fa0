//! A Redis Cluster whose masters are lost, and whose slots move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rstest::rstest;
use tempfile::TempDir;

use super::ledger::{Findings, Ledger};
use super::load::Load;
use super::{BEHIND, by_the_deadline, counts_recover, either, recovers_everywhere, serve_with, turn, under_load};
use crate::helpers::{RedisCluster, Service, eventually};

/// Of the users. Their slots are spread over three masters.
const PARTITIONS: usize = 16;

/// The service on a cluster.
fn serve(folder: &TempDir, cluster: &RedisCluster, arguments: &[&str]) -> Service {
    let (urls, partitions) = (cluster.urls(), PARTITIONS.to_string());
    serve_with(folder, &[&["--redis-cluster", &urls, "--partitions", &partitions], arguments].concat())
}

/// The same, where slowness is no failure.
fn serve_patiently(folder: &TempDir, cluster: &RedisCluster, arguments: &[&str]) -> Service {
    let (urls, partitions) = (cluster.urls(), PARTITIONS.to_string());
    let own = ["--redis-cluster", &urls, "--partitions", &partitions, "--redis-timeout", "20s"];
    Service::start(folder.path(), &[&own, arguments].concat())
}

/// A key of each partition.
fn keys(name: &str) -> impl Iterator<Item = String> {
    (0..PARTITIONS).map(move |partition| format!("{{p{partition:02}}}:{name}"))
}

/// The slots of all partitions.
fn slots(cluster: &RedisCluster) -> BTreeSet<u16> {
    keys("segments").map(|key| cluster.slot_of(&key)).collect()
}

/// The master to lose in a round: they take turns. A node that has won an election and lost its place again believes for four
/// of its timeouts that it has won the next as well, and nobody follows it (Redis 7.0.15).
fn next_master(cluster: &RedisCluster, round: usize) -> usize {
    let masters = cluster.masters();
    let in_turn = masters.iter().find(|&node| node % masters.len() == round % masters.len());
    *in_turn.expect("a master and its replica, which has three more as its number, are one turn")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_counts_and_prunes_are_spread_over_all_masters() {
    /// Somebody who has left long ago.
    const EXPIRED: &str = "u9000000";
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start_patient(&[]).await;
    let service = serve_patiently(&folder, &cluster, &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 31);
    under_load(either(1_000, 10_000)).await;
    for key in keys("segment:sports") {
        cluster.call_where::<()>(&key, &["ZADD", &key, "1", EXPIRED]);
    }
    eventually("who has expired is pruned everywhere", async || {
        keys("segment:sports").all(|key| !cluster.members(&key).iter().any(|(user, _)| user == EXPIRED))
    })
    .await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    for command in ["zadd", "zcount", "zremrangebyscore"] {
        let calls = cluster.calls(command);
        println!("spread over masters: {command} {calls:?}");
        assert!(calls.len() == 3 && calls.iter().all(|calls| *calls > 0), "{command}: {calls:?}");
    }
    let sizes: Vec<_> = keys("segment:sports").map(|key| cluster.members(&key).len()).collect();
    let mean = sizes.iter().sum::<usize>() / PARTITIONS;
    assert!(sizes.iter().all(|size| (mean / 2..=2 * mean).contains(size)), "{sizes:?}");
    ledger.check_all("spread over masters", &mut cluster.connections());
    assert!(service.terminate().success());
}

/// How a master is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// `SIGSTOP`: when it is back, it thinks for a moment that nothing has happened.
    Paused,
}

impl Loss {
    fn begin(self, cluster: &mut RedisCluster, node: usize) {
        match self {
            Self::Killed => cluster.kill(node),
            Self::Paused => cluster.pause(node),
        }
    }

    fn end(self, cluster: &mut RedisCluster, node: usize) {
        match self {
            Self::Killed => cluster.start_again(node),
            Self::Paused => cluster.resume(node),
        }
    }
}

#[rstest]
#[case::killed(Loss::Killed)]
#[case::paused(Loss::Paused)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_master_takes_along_nothing_that_its_replica_has_acknowledged(#[case] loss: Loss) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &["--write-acks", "1"]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("a master of a cluster, {loss:?}"));
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 32);
    for round in 0..either(1, 12) {
        under_load(500).await;
        let gone = next_master(&cluster, round);
        let replica = cluster.replica_of(gone);
        cluster[replica].cut_off();
        under_load(BEHIND).await;
        let since = Instant::now();
        loss.begin(&mut cluster, gone);
        let promoted = cluster.wait_until_promoted(gone).await;
        cluster[replica].let_in();
        println!("{what}: promoted after {:?}", promoted - since);
        counts_recover(&service, &what, promoted).await;
        // Nobody acknowledges what the new master has until the old one is its replica.
        loss.end(&mut cluster, gone);
        recovers_everywhere(&service, &what, Instant::now()).await;
        cluster.wait_until_ok().await;
        ledger.check_all(&format!("{what}, round {round}"), &mut cluster.connections());
    }
    by_the_deadline(&what, &load.stop().await);
    ledger.check_all(&what, &mut cluster.connections());
    assert!(service.terminate().success());
}

/// What a failover costs without `write_acks` is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_write_acks_a_lost_master_makes_nothing_up() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start_without_counts(service.address, &ledger, 33);
    for round in 0..either(1, 12) {
        under_load(500).await;
        let (gone, behind) = (next_master(&cluster, round), if round % 2 == 0 { BEHIND } else { 0 });
        let replica = cluster.replica_of(gone);
        if behind > 0 {
            cluster[replica].cut_off();
            under_load(behind).await;
        }
        cluster.kill(gone);
        let promoted = cluster.wait_until_promoted(gone).await;
        cluster[replica].let_in();
        recovers_everywhere(&service, "a master of a cluster, killed, without write_acks", promoted).await;
        let Findings { acknowledged, missing, too_early, made_up, counted_twice, .. } =
            ledger.compare_all(&mut cluster.connections());
        println!(
            "a master of a cluster, killed, its replica {behind} ms behind, without write_acks: of {acknowledged} acknowledged \
             visits {} are missing and {} too early",
            missing.len(),
            too_early.len()
        );
        assert!(acknowledged > 0);
        assert_eq!((made_up, counted_twice), (vec![], vec![]));
        cluster.start_again(gone);
        cluster.wait_until_ok().await;
    }
    load.stop().await;
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_place_is_taken_by_hand_takes_nothing_along() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 34);
    // More would be a second election of the same nodes, too early for Redis.
    for round in 0..either(3, 6) {
        under_load(300).await;
        cluster.fail_over_by_hand(next_master(&cluster, round)).await;
        recovers_everywhere(&service, "a failover by hand", Instant::now()).await;
    }
    by_the_deadline("a failover by hand", &load.stop().await);
    ledger.check_all("a failover by hand", &mut cluster.connections());
    assert!(service.terminate().success());
}

/// Neither an error nor a wrong count, nor a visit that goes where nobody looks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_there_and_back_are_not_noticed() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start_patient(&[]).await;
    let service = serve_patiently(&folder, &cluster, &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 35);
    under_load(500).await;
    let slots = slots(&cluster);
    for &slot in slots.iter().take(either(3, slots.len())) {
        let from = cluster.owner_of(slot);
        let to = cluster.masters().into_iter().find(|&node| node != from).expect("there are three");
        for node in [to, from] {
            // Each time the slot stays as it is until all is answered: nothing may wait for the end of the move.
            let while_half_moved = async |_| {
                under_load(either(20, 300)).await;
                recovers_everywhere(&service, "a slot that is half moved", Instant::now()).await;
            };
            cluster.migrate_slot(slot, node, while_half_moved).await;
            assert_eq!(cluster.owner_of(slot), node);
        }
    }
    // And one stays where it came to.
    let slot = *slots.first().expect("there are partitions");
    let to = cluster.masters().into_iter().find(|&node| node != cluster.owner_of(slot)).expect("there are three");
    cluster.migrate_slot(slot, to, async |_| under_load(10).await).await;
    under_load(300).await;
    let tally = load.stop().await;
    println!("slots that move: {tally:?}");
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    ledger.check_all("slots that move", &mut cluster.connections());
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_killed_as_a_whole_comes_back_with_every_acknowledged_visit() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start_patient(&["--appendfsync", "always"]).await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 36);
    for round in 0..either(2, 12) {
        under_load(500).await;
        cluster.kill_all();
        under_load(100).await;
        cluster.start_all_again();
        cluster.wait_until_ok().await;
        recovers_everywhere(&service, "a whole cluster killed", Instant::now()).await;
        ledger.check_all(&format!("a whole cluster killed, round {round}"), &mut cluster.connections());
    }
    by_the_deadline("a whole cluster killed", &load.stop().await);
    ledger.check_all("a whole cluster killed", &mut cluster.connections());
    assert!(service.terminate().success());
}
