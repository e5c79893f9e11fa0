//! A Redis Cluster that loses masters and migrates slots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rstest::rstest;
use tempfile::TempDir;

use super::ledger::{Comparison, Ledger};
use super::load::Load;
use super::{
    REPLICA_LAG, assert_deadlines, exclusive, quick_or_soak, run_load_for, serve_with, wait_for_counts,
    wait_for_recovery_everywhere,
};
use crate::helpers::{RedisCluster, Service, eventually};

/// Partitions of the data set. Their slots are spread over three masters.
const PARTITIONS: usize = 16;

/// Each of the load's segments gets several thousand users.
const BOUNDED: [&str; 2] = ["--max-members", "1024"];

/// Starts the service on a cluster.
fn serve(folder: &TempDir, cluster: &RedisCluster, arguments: &[&str]) -> Service {
    let (urls, partitions) = (cluster.urls(), PARTITIONS.to_string());
    serve_with(folder, &[&["--redis-cluster", &urls, "--partitions", &partitions], arguments].concat())
}

/// Starts the service on a cluster with a long `redis_timeout`, for tests in which no request may fail.
fn serve_with_long_timeout(folder: &TempDir, cluster: &RedisCluster, arguments: &[&str]) -> Service {
    let (urls, partitions) = (cluster.urls(), PARTITIONS.to_string());
    let own = ["--redis-cluster", &urls, "--partitions", &partitions, "--redis-timeout", "20s"];
    Service::start(folder.path(), &[&own, arguments].concat())
}

/// Returns the key of this name of each partition.
fn keys(name: &str) -> impl Iterator<Item = String> {
    (0..PARTITIONS).map(move |partition| format!("{{p{partition:02}}}:{name}"))
}

/// Returns the slots of all partitions.
fn slots(cluster: &RedisCluster) -> BTreeSet<u16> {
    keys("segments").map(|key| cluster.slot_of(&key)).collect()
}

/// Returns the master to lose in a round, each in turn. A node that won an election and lost its slots again claims for
/// four node timeouts to have won the next election as well, and no node follows it (Redis 7.0.15).
fn next_master(cluster: &RedisCluster, round: usize) -> usize {
    let masters = cluster.masters();
    // A master and its replica have the same index modulo three.
    let next = masters.iter().find(|&node| node % masters.len() == round % masters.len());
    *next.expect("one of each master and its replica has the slots")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_count_and_prune_use_all_masters() {
    /// User whose visit has expired.
    const EXPIRED: &str = "u9000000";
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start_without_failover(&[]).await;
    let service = serve_with_long_timeout(&folder, &cluster, &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 31);
    run_load_for(quick_or_soak(1_000, 10_000)).await;
    for key in keys("segment:sports") {
        cluster.call_where::<()>(&key, &["ZADD", &key, "1", EXPIRED]);
    }
    eventually("the expired user is pruned in all partitions", async || {
        keys("segment:sports").all(|key| !cluster.members(&key).iter().any(|(user, _)| user == EXPIRED))
    })
    .await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    for command in ["zadd", "zcount", "zremrangebyscore"] {
        let calls = cluster.calls(command);
        println!("all masters: {command} {calls:?}");
        assert!(calls.len() == 3 && calls.iter().all(|calls| *calls > 0), "{command}: {calls:?}");
    }
    let sizes: Vec<_> = keys("segment:sports").map(|key| cluster.members(&key).len()).collect();
    let mean = sizes.iter().sum::<usize>() / PARTITIONS;
    assert!(sizes.iter().all(|size| (mean / 2..=2 * mean).contains(size)), "{sizes:?}");
    ledger.check_all("all masters", &mut cluster.connections());
    assert!(service.terminate().success());
}

/// How a master is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// By `SIGSTOP`. After `SIGCONT` it acts as a master for a moment.
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
#[case::killed(Loss::Killed, &[])]
#[case::killed_with_samples(Loss::Killed, &BOUNDED)]
#[case::paused(Loss::Paused, &[])]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_keeps_what_the_replica_acknowledged_when_a_master_is_lost(
    #[case] loss: Loss,
    #[case] arguments: &[&str],
) {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &[&["--write-acks", "1"], arguments].concat());
    let (ledger, what) = (Arc::<Ledger>::default(), format!("a master of a cluster, {loss:?}"));
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 32);
    for round in 0..quick_or_soak(1, 12) {
        run_load_for(500).await;
        let gone = next_master(&cluster, round);
        let replica = cluster.replica_of(gone);
        ledger.fault_injected("the replica lags behind");
        cluster[replica].stop_replication();
        run_load_for(REPLICA_LAG).await;
        let since = Instant::now();
        ledger.fault_injected(format_args!("master {gone}: {loss:?}"));
        loss.begin(&mut cluster, gone);
        let promoted = cluster.wait_until_promoted(gone).await;
        cluster[replica].resume_replication();
        ledger.fault_healed("the replica lags behind");
        println!("{what}: promoted after {:?}", promoted - since);
        wait_for_counts(&service, &what, promoted).await;
        // Writes to the new master are acknowledged once the old one is its replica.
        loss.end(&mut cluster, gone);
        ledger.fault_healed(format_args!("master {gone}: {loss:?}"));
        wait_for_recovery_everywhere(&service, &what, Instant::now()).await;
        cluster.wait_until_ok().await;
        ledger.check_all(&format!("{what}, round {round}"), &mut cluster.connections());
    }
    assert_deadlines(&what, &load.stop().await);
    ledger.check_all(&what, &mut cluster.connections());
    assert!(service.terminate().success());
}

/// Prints what a failover costs without `write_acks`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_without_write_acks_makes_nothing_up_when_a_master_is_lost() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start_without_counts(service.address, &ledger, 33);
    for round in 0..quick_or_soak(1, 12) {
        run_load_for(500).await;
        let (gone, behind) = (next_master(&cluster, round), if round % 2 == 0 { REPLICA_LAG } else { 0 });
        let replica = cluster.replica_of(gone);
        if behind > 0 {
            cluster[replica].stop_replication();
            run_load_for(behind).await;
        }
        cluster.kill(gone);
        let promoted = cluster.wait_until_promoted(gone).await;
        cluster[replica].resume_replication();
        wait_for_recovery_everywhere(&service, "a master of a cluster, killed, without write_acks", promoted).await;
        let Comparison { acknowledged, missing, too_early, made_up, counted_twice, .. } =
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
async fn record_loses_nothing_in_a_failover_by_hand() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start().await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 34);
    // With more rounds, the same nodes would be elected a second time, too early for Redis.
    for round in 0..quick_or_soak(3, 6) {
        run_load_for(300).await;
        ledger.fault_injected("failover by hand");
        cluster.fail_over_by_hand(next_master(&cluster, round)).await;
        ledger.fault_healed("failover by hand");
        wait_for_recovery_everywhere(&service, "a failover by hand", Instant::now()).await;
    }
    assert_deadlines("a failover by hand", &load.stop().await);
    ledger.check_all("a failover by hand", &mut cluster.connections());
    assert!(service.terminate().success());
}

#[rstest]
#[case::all_members(&[])]
#[case::samples(&BOUNDED)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_and_count_succeed_while_slots_migrate(#[case] arguments: &[&str]) {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start_without_failover(&[]).await;
    let arguments = [&["--prune-schedule", "* * * * * *"], arguments].concat();
    let service = serve_with_long_timeout(&folder, &cluster, &arguments);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 35);
    run_load_for(500).await;
    let slots = slots(&cluster);
    for &slot in slots.iter().take(quick_or_soak(3, slots.len())) {
        let from = cluster.owner_of(slot);
        let to = cluster.masters().into_iter().find(|&node| node != from).expect("there are three masters");
        for node in [to, from] {
            // The slot stays half migrated until all partitions answer: no request may wait for the end of the
            // migration.
            let while_half_migrated = async |_| {
                run_load_for(quick_or_soak(20, 300)).await;
                wait_for_recovery_everywhere(&service, "a half-migrated slot", Instant::now()).await;
            };
            cluster.wait_until_pinged(cluster.owner_of(slot), node).await;
            ledger.fault_injected(format_args!("slot {slot} migrates to node {node}"));
            cluster.migrate_slot(slot, node, while_half_migrated).await;
            ledger.fault_healed(format_args!("slot {slot} migrates to node {node}"));
            assert_eq!(cluster.owner_of(slot), node);
        }
    }
    // One slot stays on its new node.
    let slot = *slots.first().expect("there are partitions");
    let to =
        cluster.masters().into_iter().find(|&node| node != cluster.owner_of(slot)).expect("there are three masters");
    cluster.migrate_slot(slot, to, async |_| run_load_for(10).await).await;
    run_load_for(300).await;
    let tally = load.stop().await;
    println!("slots that migrate: {tally:?}");
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    ledger.check_all("slots that migrate", &mut cluster.connections());
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_keeps_every_acknowledged_visit_when_the_whole_cluster_is_killed() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start_without_failover(&["--appendfsync", "always"]).await;
    let service = serve(&folder, &cluster, &[]);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 36);
    for round in 0..quick_or_soak(2, 12) {
        run_load_for(500).await;
        ledger.fault_injected("all nodes killed");
        cluster.kill_all();
        run_load_for(100).await;
        cluster.start_all_again();
        ledger.fault_healed("all nodes killed");
        cluster.wait_until_ok().await;
        wait_for_recovery_everywhere(&service, "a whole cluster killed", Instant::now()).await;
        ledger.check_all(&format!("a whole cluster killed, round {round}"), &mut cluster.connections());
    }
    assert_deadlines("a whole cluster killed", &load.stop().await);
    ledger.check_all("a whole cluster killed", &mut cluster.connections());
    assert!(service.terminate().success());
}
