//! A Redis that answers nothing for a while, and then goes on.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{by_the_deadline, either, is_soak, nothing_is_acknowledged, post, recovers, serve, turn, under_load};
use crate::helpers::{Redis, Service, descriptors, eventually, kill, peak_memory};

#[derive(Debug, Clone, Copy)]
enum Freeze {
    /// The process is stopped.
    Signal,
    /// `CLIENT PAUSE` holds all commands, that which would end it included.
    Pause,
}

impl Freeze {
    fn begin(self, redis: &Redis, millis: u64) {
        match self {
            Self::Signal => kill("-STOP", redis.pid()),
            Self::Pause => redis.call(&["CLIENT", "PAUSE", &millis.to_string(), "ALL"]),
        }
    }

    /// Returns when it is over.
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
async fn a_frozen_redis_is_503_and_then_all_is_as_before(#[case] freeze: Freeze) {
    /// How much more memory the service may take for it.
    const MORE_KIB: u64 = 64 * 1024;
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &[]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("frozen, {freeze:?}"));
    recovers(&service, "the start").await;
    let open = descriptors(service.pid());
    let load = Load::start(service.address, &ledger, 5);
    under_load(1_000).await;
    let usual = rate(&ledger).await;
    let memory = peak_memory(service.pid());

    let millis = either(1_500, 8_000);
    freeze.begin(&redis, 3 * millis);
    eventually("a visit is refused", async || post(&service).await == 503).await;
    nothing_is_acknowledged(&ledger, millis).await;
    assert_eq!(service.status_of("/healthz").await, 200);
    assert_eq!(service.status_of("/readyz").await, 503);
    assert_eq!(service.status_of("/segments/sports/count").await, 503);

    freeze.end(&redis);
    under_load(1_000).await;
    let then = rate(&ledger).await;
    println!("{what}: {then} visits/s a second after the thaw, {usual} before");
    assert!(!is_soak() || then * 10 >= usual * 8, "{then} visits/s after the thaw, {usual} before");
    recovers(&service, &what).await;
    let more = peak_memory(service.pid()).saturating_sub(memory);
    println!("{what}: {more} KiB of memory more");
    assert!(more < MORE_KIB, "{more} KiB more");

    by_the_deadline(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    no_connections_are_left_behind(&service, open).await;
    assert!(service.terminate().success());
}

/// Acknowledged visits in a second.
async fn rate(ledger: &Ledger) -> u64 {
    let before = ledger.acknowledged();
    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.acknowledged() - before
}

async fn no_connections_are_left_behind(service: &Service, open: usize) {
    eventually("connections that were given up are closed", async || descriptors(service.pid()) <= open).await;
}
