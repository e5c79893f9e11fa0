//! A primary that sentinels watch, and replace when it is lost.

use std::sync::Arc;
use std::time::Instant;

use rstest::rstest;

use super::ledger::{Findings, Ledger};
use super::load::Load;
use super::{BEHIND, by_the_deadline, counts_recover, either, recovers_everywhere, serve_with, turn, under_load};
use crate::helpers::{Redis, Sentinels};

/// How the primary is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// `SIGSTOP`: when it is back, it is a primary until the sentinels make it a replica.
    Paused,
}

impl Loss {
    /// Says which server it was.
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

/// Sentinels choose by what replicas said a while ago. So one that has a visit isn't enough: all must have it.
#[rstest]
#[case::killed(Loss::Killed)]
#[case::paused(Loss::Paused)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_primary_takes_along_nothing_that_both_replicas_have_acknowledged(#[case] loss: Loss) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start().await;
    let service = serve_with(&folder, &["--redis-sentinel", &sentinels.urls(), "--write-acks", "2"]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("a primary with sentinels, {loss:?}"));
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start(service.address, &ledger, 41);
    for round in 0..either(1, 10) {
        under_load(500).await;
        sentinels.replicas().for_each(Redis::cut_off);
        under_load(BEHIND).await;
        let (gone, since) = (loss.begin(&mut sentinels), Instant::now());
        sentinels.replicas().for_each(Redis::let_in);
        let promoted = sentinels.wait_until_failed_over(gone).await;
        println!("{what}: another primary after {:?}", promoted - since);
        counts_recover(&service, &what, promoted).await;
        // There is one replica now. The sentinels make another of who comes back.
        loss.end(&mut sentinels, gone);
        sentinels.wait_until_ok().await;
        recovers_everywhere(&service, &what, Instant::now()).await;
        ledger.check(&format!("{what}, round {round}"), &mut sentinels[sentinels.primary()].connection());
    }
    by_the_deadline(&what, &load.stop().await);
    ledger.check(&what, &mut sentinels[sentinels.primary()].connection());
    assert!(service.terminate().success());
}

/// What a failover costs without `write_acks` is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_write_acks_a_lost_primary_makes_nothing_up() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start().await;
    let service = serve_with(&folder, &["--redis-sentinel", &sentinels.urls()]);
    let ledger = Arc::<Ledger>::default();
    recovers_everywhere(&service, "the start", Instant::now()).await;
    let load = Load::start_without_counts(service.address, &ledger, 42);
    for round in 0..either(1, 10) {
        under_load(500).await;
        let behind = if round % 2 == 0 { BEHIND } else { 0 };
        if behind > 0 {
            sentinels.replicas().for_each(Redis::cut_off);
            under_load(behind).await;
        }
        let gone = sentinels.kill_primary();
        sentinels.replicas().for_each(Redis::let_in);
        let promoted = sentinels.wait_until_failed_over(gone).await;
        recovers_everywhere(&service, "a primary with sentinels, killed, without write_acks", promoted).await;
        let Findings { acknowledged, missing, too_early, made_up, .. } =
            ledger.compare(&mut sentinels[sentinels.primary()].connection());
        println!(
            "a primary with sentinels, killed, its replicas {behind} ms behind, without write_acks: of {acknowledged} acknowledged \
             visits {} are missing and {} too early",
            missing.len(),
            too_early.len()
        );
        assert!(acknowledged > 0);
        assert_eq!(made_up, Vec::<String>::new());
        sentinels.start_again(gone);
        sentinels.wait_until_ok().await;
    }
    load.stop().await;
    assert!(service.terminate().success());
}
