//! A primary that sentinels replace when it is lost.

use std::sync::Arc;
use std::time::Instant;

use rstest::rstest;

use super::ledger::{Comparison, Ledger};
use super::load::Load;
use super::{
    REPLICA_LAG, assert_deadlines, exclusive, quick_or_soak, run_load_for, serve_with, wait_for_counts,
    wait_for_recovery_everywhere,
};
use crate::helpers::{Redis, Sentinels};

/// How the primary is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// By `SIGSTOP`. After `SIGCONT` it is a primary until the sentinels make it a replica.
    Paused,
}

impl Loss {
    /// Returns the index of the primary.
    fn begin(self, sentinels: &mut Sentinels) -> usize {
        match self {
            Self::Killed => sentinels.kill_primary(),
            Self::Paused => sentinels.pause_primary(),
        }
    }

    fn end(self, sentinels: &mut Sentinels, server: usize) {
        match self {
            Self::Killed => sentinels.start_again(server),
            Self::Paused => sentinels.resume(server),
        }
    }
}

/// Sentinels choose a replica by offsets that may be out of date, so every replica must have a visit.
#[rstest]
#[case::killed(Loss::Killed)]
#[case::paused(Loss::Paused)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_keeps_what_both_replicas_acknowledged_when_the_primary_is_lost(#[case] loss: Loss) {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start().await;
    let service = serve_with(&folder, &["--redis-sentinel", &sentinels.urls(), "--write-acks", "2"]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("a primary with sentinels, {loss:?}"));
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 41);
    for round in 0..quick_or_soak(1, 10) {
        run_load_for(500).await;
        ledger.fault_injected("the replicas lag behind");
        sentinels.replicas().for_each(Redis::stop_replication);
        run_load_for(REPLICA_LAG).await;
        ledger.fault_injected(format_args!("primary: {loss:?}"));
        let (gone, since) = (loss.begin(&mut sentinels), Instant::now());
        sentinels.replicas().for_each(Redis::resume_replication);
        ledger.fault_healed("the replicas lag behind");
        let promoted = sentinels.wait_until_failed_over(gone).await;
        println!("{what}: another primary after {:?}", promoted - since);
        wait_for_counts(&service, &what, promoted).await;
        // One replica is left. The sentinels make the old primary another one.
        loss.end(&mut sentinels, gone);
        ledger.fault_healed(format_args!("primary: {loss:?}"));
        sentinels.wait_until_ok().await;
        wait_for_recovery_everywhere(&service, &what, Instant::now()).await;
        ledger.check(&format!("{what}, round {round}"), &mut sentinels[sentinels.primary()].connection());
    }
    assert_deadlines(&what, &load.stop().await);
    ledger.check(&what, &mut sentinels[sentinels.primary()].connection());
    assert!(service.terminate().success());
}

/// Prints what a failover costs without `write_acks`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_without_write_acks_makes_nothing_up_when_the_primary_is_lost() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start().await;
    let service = serve_with(&folder, &["--redis-sentinel", &sentinels.urls()]);
    let ledger = Arc::<Ledger>::default();
    wait_for_recovery_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start_without_counts(service.address, &ledger, 42);
    for round in 0..quick_or_soak(1, 10) {
        run_load_for(500).await;
        let behind = if round % 2 == 0 { REPLICA_LAG } else { 0 };
        if behind > 0 {
            sentinels.replicas().for_each(Redis::stop_replication);
            run_load_for(behind).await;
        }
        let gone = sentinels.kill_primary();
        sentinels.replicas().for_each(Redis::resume_replication);
        let promoted = sentinels.wait_until_failed_over(gone).await;
        wait_for_recovery_everywhere(&service, "a primary with sentinels, killed, without write_acks", promoted).await;
        let Comparison { acknowledged, missing, too_early, made_up, .. } =
            ledger.compare(&mut sentinels[sentinels.primary()].connection());
        println!(
            "a primary with sentinels, killed, its replicas {behind} ms behind, without write_acks: of {acknowledged} acknowledged \
             visits {} are missing and {} too early",
            missing.len(),
            too_early.len()
        );
        assert!(acknowledged > 0);
        assert_eq!(made_up, []);
        sentinels.start_again(gone);
        sentinels.wait_until_ok().await;
    }
    load.stop().await;
    assert!(service.terminate().success());
}
