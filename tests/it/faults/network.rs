//! What can go wrong on the way to Redis.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{by_the_deadline, either, nothing_is_acknowledged, post, recovers, serve, turn, under_load};
use crate::helpers::{Blow, Proxy, Redis, Service, Weather, eventually};

/// While no reply comes through, nothing is acknowledged, and every request ends.
#[rstest]
#[case::too_slow(Weather::Slow(Duration::from_secs(3)))]
#[case::replies_held(Weather::RepliesHeld)]
#[case::replies_torn(Weather::RepliesTorn)]
#[case::black_hole(Weather::BlackHole)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_s_reply_there_is_no_2xx(#[case] weather: Weather) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &[]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("{weather:?}"));
    let load = Load::start(service.address, &ledger, 2);
    for _ in 0..either(2, 10) {
        under_load(200).await;
        proxy.turn(weather);
        // Replies that were on their way may still arrive.
        eventually("a visit is refused", async || post(&service).await == 503).await;
        eventually("a count is refused", async || service.status_of("/segments/sports/count").await == 503).await;
        nothing_is_acknowledged(&ledger, either(700, 3_000)).await;
        assert_eq!(service.status_of("/healthz").await, 200);
        assert_eq!(service.status_of("/readyz").await, 503);
        proxy.turn(Weather::Fine);
        recovers(&service, &what).await;
    }
    by_the_deadline(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_are_late_but_in_time_cost_nothing_but_time() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = Service::start(folder.path(), &["--redis-url", &proxy.url(), "--redis-timeout", "20s"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 3);
    proxy.turn(Weather::Slow(Duration::from_millis(100)));
    under_load(either(1_000, 10_000)).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    ledger.check("late replies", &mut redis.connection());
    assert!(service.terminate().success());
}

#[rstest]
#[case::cut(Blow::Cut)]
#[case::reset(Blow::Reset)]
#[case::half_closed(Blow::HalfClose)]
#[case::half_open(Blow::Deaden)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_replaced_and_lose_nothing(#[case] blow: Blow) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &[]);
    let (ledger, what) = (Arc::<Ledger>::default(), format!("connections {blow:?}"));
    let load = Load::start(service.address, &ledger, 4);
    for _ in 0..either(5, 50) {
        under_load(100).await;
        proxy.strike(blow);
        recovers(&service, &what).await;
    }
    by_the_deadline(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}
