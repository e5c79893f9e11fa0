//! Network faults between the service and Redis.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{
    assert_deadlines, post_probe, quick_or_soak, run_load_for, serve, side_by_side, wait_for_recovery, wait_for_silence,
};
use crate::helpers::{Fault, Proxy, Redis, Service, Toxic, eventually};

#[rstest]
#[case::latency(Toxic::Latency(Duration::from_secs(3)))]
#[case::timeout_downstream(Toxic::TimeoutDownstream)]
#[case::limit_data(Toxic::LimitData)]
#[case::timeout(Toxic::Timeout)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_acknowledges_nothing_without_a_reply_of_redis(#[case] toxic: Toxic) {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &[]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("{toxic:?}"));
    let load = Load::start(service.address, &ledger, 2);
    for _ in 0..quick_or_soak(2, 10) {
        run_load_for(200).await;
        ledger.fault_injected(&what);
        proxy.set_toxic(toxic);
        // Replies in flight may still arrive.
        eventually("a visit is refused", async || post_probe(&service).await == 503).await;
        eventually("a count is refused", async || service.status_of("/segments/sports/count").await == 503).await;
        wait_for_silence(&ledger, quick_or_soak(700, 3_000)).await;
        assert_eq!(service.status_of("/healthz").await, 200);
        assert_eq!(service.status_of("/readyz").await, 503);
        proxy.remove_toxic();
        ledger.fault_healed(&what);
        wait_for_recovery(&service, &what).await;
    }
    assert_deadlines(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_succeeds_when_replies_are_late_but_in_time() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = Service::start(folder.path(), &["--redis-url", &proxy.url(), "--redis-timeout", "20s"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 3);
    ledger.fault_injected("latency");
    proxy.set_toxic(Toxic::Latency(Duration::from_millis(100)));
    run_load_for(quick_or_soak(1_000, 10_000)).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    ledger.check("late replies", &mut redis.connection());
    assert!(service.terminate().success());
}

#[rstest]
#[case::close(Fault::Close)]
#[case::reset_peer(Fault::ResetPeer)]
#[case::half_close(Fault::HalfClose)]
#[case::half_open(Fault::HalfOpen)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_loses_nothing_when_connections_break(#[case] fault: Fault) {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &[]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("connections {fault:?}"));
    let load = Load::start(service.address, &ledger, 4);
    for _ in 0..quick_or_soak(5, 50) {
        run_load_for(100).await;
        ledger.fault_injected(&what);
        proxy.inject(fault);
        wait_for_recovery(&service, &what).await;
    }
    assert_deadlines(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}
