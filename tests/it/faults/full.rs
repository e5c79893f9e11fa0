//! Full memory and full disks.

use std::sync::Arc;

use super::ledger::Ledger;
use super::load::Load;
use super::{post_probe, run_load_for, serve, side_by_side, wait_for_recovery};
use crate::helpers::{Redis, eventually};

/// Expired members fill the memory. Pruning frees it without any action of the operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_503_at_full_memory_until_pruning_frees_some() {
    const EXPIRED: u64 = 400_000;
    /// Bytes for the members that the load adds. The expired members take more than twice that.
    const ROOM: u64 = 16_000_000;
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 8);
    run_load_for(500).await;

    // In one transaction, so that no pruning comes between them: the expired members, and the limit on memory.
    let info: String = redis.call(&["INFO", "memory"]);
    let used: u64 = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap();
    let fill = "for i = 1, ARGV[1] do redis.call('ZADD', 'segment:old', i, 'expired-' .. i) end";
    let calls = redis.calls("zremrangebyscore");
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("EVAL").arg(fill).arg(0).arg(EXPIRED).ignore();
    transaction.cmd("ZADD").arg("segments").arg(0).arg("old").ignore();
    transaction.cmd("CONFIG").arg("SET").arg("maxmemory").arg(used + ROOM).ignore();
    ledger.fault_injected("memory full");
    transaction.exec(&mut redis.connection()).unwrap();
    eventually("a visit was refused", async || {
        service.metric(r#"estimator_redis_errors_total{kind="out_of_memory"}"#).await > 0
    })
    .await;
    // Counts are still answered. The load checks that each is right.
    assert_eq!(service.count("old").await, 0);

    wait_for_recovery(&service, "full memory").await;
    assert!(redis.calls("zremrangebyscore") > calls);
    eventually("all expired members are pruned", async || redis.call::<u64>(&["EXISTS", "segment:old"]) == 0).await;
    load.stop().await;
    ledger.check("full memory", &mut redis.connection());
    assert!(service.terminate().success());
}

/// A full disk, simulated by a limit on the size of files: it needs no privileges and can be lifted.
#[cfg(target_os = "linux")]
mod disk {
    use rlimit::{INFINITY, Resource, prlimit};

    use super::*;
    use crate::helpers::{Service, private_redis_connection, private_redis_pid};

    /// Limits the size of the files that a process writes.
    fn limit_files(pid: u32, bytes: u64) {
        prlimit(pid.cast_signed(), Resource::FSIZE, Some((bytes, INFINITY)), None).unwrap();
    }

    /// More than the log of Redis, less than the visits of a second.
    const FULL: u64 = 100_000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn record_is_503_on_a_full_disk_until_there_is_room() {
        let _guard = side_by_side().await;
        let folder = tempfile::tempdir().unwrap();
        // With `always` Redis would end: see the next test.
        let redis = Redis::start_with(&["--appendfsync", "everysec"]);
        let service = serve(&folder, &redis.url(), &[]);
        let ledger = Arc::<Ledger>::default();
        let load = Load::start(service.address, &ledger, 9);
        run_load_for(300).await;

        ledger.fault_injected("disk full");
        limit_files(redis.pid(), FULL);
        eventually("a visit is refused", async || post_probe(&service).await == 503).await;
        run_load_for(500).await;
        assert_eq!(post_probe(&service).await, 503);
        assert_eq!(service.status_of("/segments/sports/count").await, 200);
        assert!(service.metric(r#"estimator_redis_errors_total{kind="misconf"}"#).await > 0);

        limit_files(redis.pid(), INFINITY);
        ledger.fault_healed("disk full");
        wait_for_recovery(&service, "full disk").await;
        load.stop().await;
        ledger.check("full disk", &mut redis.connection());
        assert!(service.terminate().success());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn record_recovers_when_the_disk_that_ended_the_private_redis_has_room() {
        let _guard = side_by_side().await;
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(folder.path(), &[]);
        let ledger = Arc::<Ledger>::default();
        let load = Load::start(service.address, &ledger, 10);
        run_load_for(300).await;

        let first = private_redis_pid(folder.path());
        // The next Redis inherits the limit from the service.
        ledger.fault_injected("disk full");
        limit_files(service.pid(), FULL);
        limit_files(first, FULL);
        eventually("a visit is refused", async || post_probe(&service).await == 503).await;
        eventually("Redis was started again", async || service.has_logged("starting it again")).await;
        run_load_for(2_000).await;
        assert_eq!(service.status_of("/healthz").await, 200);

        limit_files(service.pid(), INFINITY);
        ledger.fault_healed("disk full");
        // The present Redis still has the limit, and ends at the next visit.
        wait_for_recovery(&service, "full disk, private Redis").await;
        assert_ne!(private_redis_pid(folder.path()), first);
        load.stop().await;
        ledger.check("full disk, private Redis", &mut private_redis_connection(folder.path()));
        assert!(service.terminate().success());
    }
}
