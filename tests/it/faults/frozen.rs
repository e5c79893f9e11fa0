//! A Redis that answers nothing for a while.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{
    assert_deadlines, is_soak, post_probe, quick_or_soak, run_load_for, serve, side_by_side, wait_for_recovery,
    wait_for_silence,
};
use crate::helpers::{Redis, eventually, kill, open_descriptors, peak_memory};

/// How Redis freezes.
#[derive(Debug, Clone, Copy)]
enum Freeze {
    /// By `SIGSTOP`.
    Signal,
    /// By `CLIENT PAUSE`, which holds back all commands, `CLIENT UNPAUSE` included.
    Pause,
}

impl Freeze {
    fn begin(self, redis: &Redis, millis: u64) {
        match self {
            Self::Signal => kill("-STOP", redis.pid()),
            Self::Pause => redis.call(&["CLIENT", "PAUSE", &millis.to_string(), "ALL"]),
        }
    }

    /// Returns when the freeze has ended.
    fn end(self, redis: &Redis) {
        match self {
            Self::Signal => kill("-CONT", redis.pid()),
            Self::Pause => redis.call(&["PING"]),
        }
    }
}

#[rstest]
#[case::stopped(Freeze::Signal)]
#[case::paused(Freeze::Pause)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_503_while_redis_is_frozen_and_as_fast_as_before_after_it(#[case] freeze: Freeze) {
    /// Limit on the growth of the service's memory.
    const MAX_GROWTH_KIB: u64 = 64 * 1024;
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    // Idle connections of clients end soon, so that the descriptors left are those to Redis.
    let service = serve(&folder, &redis.url(), &["--header-timeout", "2s"]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("frozen, {freeze:?}"));
    wait_for_recovery(&service, "the start").await;
    let open = open_descriptors(service.pid());
    let load = Load::start(service.address, &ledger, 5);
    run_load_for(1_000).await;
    let before = rate(&ledger).await;
    let memory = peak_memory(service.pid());

    let millis = quick_or_soak(1_500, 8_000);
    ledger.fault_injected(format_args!("Redis frozen by {freeze:?}"));
    freeze.begin(&redis, 3 * millis);
    eventually("a visit is refused", async || post_probe(&service).await == 503).await;
    wait_for_silence(&ledger, millis).await;
    assert_eq!(service.status_of("/healthz").await, 200);
    assert_eq!(service.status_of("/readyz").await, 503);
    assert_eq!(service.status_of("/segments/sports/count").await, 503);

    freeze.end(&redis);
    ledger.fault_healed(format_args!("Redis frozen by {freeze:?}"));
    run_load_for(1_000).await;
    let after = rate(&ledger).await;
    println!("{what}: {after} visits/s a second after the thaw, {before} before");
    assert!(!is_soak() || after * 10 >= before * 8, "{after} visits/s after the thaw, {before} before");
    wait_for_recovery(&service, &what).await;
    let growth = peak_memory(service.pid()).saturating_sub(memory);
    println!("{what}: memory grew by {growth} KiB");
    assert!(growth < MAX_GROWTH_KIB, "memory grew by {growth} KiB");

    assert_deadlines(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    eventually("timed-out connections are closed", async || open_descriptors(service.pid()) <= open).await;
    assert!(service.terminate().success());
}

/// Returns the acknowledged visits per second.
async fn rate(ledger: &Ledger) -> u64 {
    let before = ledger.acknowledged();
    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.acknowledged() - before
}
