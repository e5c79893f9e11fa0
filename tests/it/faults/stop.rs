//! SIGTERM under load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::ledger::Ledger;
use super::load::Load;
use super::{serve, turn, under_load, within};
use crate::helpers::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_answered_2xx_before_a_stop_is_in_redis() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let ledger = Arc::<Ledger>::default();
    for round in 1..=20 {
        let service = serve(&folder, &redis.url(), &["--drain-timeout", "4s"]);
        let load = Load::start(service.address, &ledger, round);
        under_load(20 + 10 * round).await;
        let since = Instant::now();
        let status = block_in_place(|| service.terminate());
        assert!(status.success(), "{status}");
        within("a stop under load", since.elapsed(), Duration::from_secs(4));
        let tally = load.stop().await;
        assert!(tally.done > 0, "{tally:?}");
        ledger.check(&format!("SIGTERM, round {round}"), &mut redis.connection());
    }
}
