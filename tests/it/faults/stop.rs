//! SIGTERM under load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::ledger::Ledger;
use super::load::Load;
use super::{assert_within, quick_or_soak, run_load_for, serve, side_by_side};
use crate::helpers::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_keeps_every_visit_that_was_answered_2xx() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let ledger = Arc::<Ledger>::default();
    for round in 1..=quick_or_soak(6, 20) {
        let service = serve(&folder, &redis.url(), &["--drain-timeout", "4s"]);
        let load = Load::start(service.address, &ledger, round);
        run_load_for(20 + 10 * round).await;
        let since = Instant::now();
        ledger.fault_injected("SIGTERM");
        let status = block_in_place(|| service.terminate());
        assert!(status.success(), "{status}");
        assert_within("a stop under load", since.elapsed(), Duration::from_secs(4));
        let tally = load.stop().await;
        assert!(tally.done > 0, "{tally:?}");
        ledger.check(&format!("SIGTERM, round {round}"), &mut redis.connection());
    }
}
