//! Load for a long time, with faults now and then: nothing grows.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::load::Load;
use super::{either, recovers, serve, turn};
use crate::helpers::{Blow, Proxy, Redis, descriptors, eventually, resident};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_descriptors_stay_as_they_are() {
    /// In parts of the time: after the first, allocator and pools have what they need.
    const PARTS: u32 = 10;
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 11);
    let duration = either(Duration::from_secs(10), Duration::from_secs(30 * 60));
    let mut seen = Vec::new();
    for part in 0..PARTS {
        tokio::time::sleep(duration / PARTS).await;
        proxy.strike([Blow::Cut, Blow::Reset, Blow::Deaden, Blow::HalfClose][part as usize % 4]);
        recovers(&service, "a broken connection").await;
        seen.push((resident(service.pid()), descriptors(service.pid())));
        println!("soak, part {part}: {:?} (KiB, descriptors)", seen.last());
    }
    let ((memory, open), (memory_then, _)) = (seen[1], seen[seen.len() - 1]);
    assert!(memory_then <= memory + memory / 4 + 4_096, "{seen:?}");
    eventually("no more descriptors than before", async || descriptors(service.pid()) <= open + 2).await;
    load.stop().await;
    ledger.check("soak", &mut redis.connection());
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}
