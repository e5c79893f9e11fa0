//! Load for a long time, with a broken connection now and then.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::load::Load;
use super::{quick_or_soak, serve, side_by_side, wait_for_recovery};
use crate::helpers::{Fault, Proxy, Redis, eventually, open_descriptors, resident_memory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_keeps_its_memory_and_descriptors_under_long_load() {
    /// Parts of the time. After the first one, allocator and pools have their size.
    const PARTS: u32 = 10;
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let service = serve(&folder, &proxy.url(), &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 11);
    let duration = quick_or_soak(Duration::from_secs(5), Duration::from_secs(30 * 60));
    let mut samples = Vec::new();
    for part in 0..PARTS {
        tokio::time::sleep(duration / PARTS).await;
        let fault = [Fault::Close, Fault::ResetPeer, Fault::HalfOpen, Fault::HalfClose][part as usize % 4];
        ledger.fault_injected(format_args!("connections {fault:?}"));
        proxy.inject(fault);
        wait_for_recovery(&service, "a broken connection").await;
        samples.push((resident_memory(service.pid()), open_descriptors(service.pid())));
        println!("soak, part {part}: {:?} (KiB, descriptors)", samples.last());
    }
    let ((memory, open), (last_memory, _)) = (samples[1], samples[samples.len() - 1]);
    assert!(last_memory <= memory + memory / 4 + 4_096, "{samples:?}");
    eventually("there are no more descriptors than before", async || open_descriptors(service.pid()) <= open + 2).await;
    load.stop().await;
    ledger.check("soak", &mut redis.connection());
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}
