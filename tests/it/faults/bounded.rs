//! Bounded segments under faults: no acknowledged visit of a kept level is missing, and estimates stay near the users.

use std::sync::Arc;
use std::time::Instant;

use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{
    exclusive, quick_or_soak, run_load_for, serve, serve_with, side_by_side, wait_for_counts, wait_for_recovery,
    wait_for_recovery_everywhere,
};
use crate::helpers::{Fault, Proxy, Redis, Sentinels, Service};

/// The bound. Each of the load's segments gets several thousand users.
const BOUND: [&str; 2] = ["--max-members", "1024"];

/// Asserts that depths were raised, or nothing was tested.
#[track_caller]
fn assert_sampled(redis: &Redis) {
    let hashes: Vec<String> = redis.call(&["KEYS", "*depths"]);
    assert!(!hashes.is_empty(), "no segment keeps a sample");
}

#[rstest]
#[case::close(Fault::Close)]
#[case::reset_peer(Fault::ResetPeer)]
#[case::half_open(Fault::HalfOpen)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_loses_nothing_when_connections_break(#[case] fault: Fault) {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &BOUND);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("a sample, connections {fault:?}"));
    let load = Load::start(service.address, &ledger, 51);
    for _ in 0..quick_or_soak(4, 40) {
        run_load_for(300).await;
        ledger.fault_injected(&what);
        proxy.inject(fault);
        ledger.fault_healed(&what);
        wait_for_recovery(&service, &what).await;
    }
    load.stop().await;
    assert_sampled(&redis);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}

/// Half of the kills come while depths are raised: the segments grow fast at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_loses_nothing_when_redis_is_killed() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendfsync", "always"]);
    let service = serve(&folder, &redis.url(), &BOUND);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 52);
    for round in 1..=quick_or_soak(6, 30) {
        run_load_for(50 + 30 * round).await;
        ledger.fault_injected("Redis killed");
        redis.stop();
        redis.start_again();
        ledger.fault_healed("Redis killed");
        ledger.check(&format!("a sample, Redis killed, round {round}"), &mut redis.connection());
        wait_for_recovery(&service, "a sample, Redis killed").await;
    }
    load.stop().await;
    assert_sampled(&redis);
    ledger.check("a sample, Redis killed", &mut redis.connection());
    assert!(service.terminate().success());
}

/// Another service continues with what the killed one has raised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_loses_nothing_when_services_are_killed() {
    let _guard = side_by_side().await;
    let redis = Redis::start();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ledger = Arc::<Ledger>::default();
    let mut service = serve(&folders[0], &redis.url(), &BOUND);
    for round in 1..=quick_or_soak(6, 30) {
        let load = Load::start(service.address, &ledger, 53 + round);
        run_load_for(100 + 30 * round).await;
        let next: Service = serve(&folders[round as usize % 2], &redis.url(), &BOUND);
        ledger.fault_injected("service killed");
        service.kill();
        load.stop().await;
        ledger.check(&format!("a sample, service killed, round {round}"), &mut redis.connection());
        service = next;
    }
    assert_sampled(&redis);
    assert!(service.terminate().success());
}

/// A raise that the replicas lack must not have dropped a visit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_keeps_what_both_replicas_acknowledged_when_the_primary_is_lost() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start().await;
    let urls = sentinels.urls();
    let arguments = [&["--redis-sentinel", &urls, "--write-acks", "2"][..], &BOUND].concat();
    let service = serve_with(&folder, &arguments);
    let ledger = Arc::<Ledger>::default();
    let what = "a sample, the primary killed";
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 54);
    for _ in 0..quick_or_soak(1, 10) {
        run_load_for(1_000).await;
        ledger.fault_injected("the replicas lag behind");
        sentinels.replicas().for_each(Redis::stop_replication);
        run_load_for(super::REPLICA_LAG).await;
        ledger.fault_injected("primary killed");
        let gone = sentinels.kill_primary();
        sentinels.replicas().for_each(Redis::resume_replication);
        ledger.fault_healed("the replicas lag behind");
        let promoted = sentinels.wait_until_failed_over(gone).await;
        wait_for_counts(&service, what, promoted).await;
        sentinels.start_again(gone);
        ledger.fault_healed("primary killed");
        sentinels.wait_until_ok().await;
        wait_for_recovery_everywhere(&service, what, Instant::now()).await;
    }
    load.stop().await;
    ledger.check(what, &mut sentinels[sentinels.primary()].connection());
    assert!(service.terminate().success());
}
