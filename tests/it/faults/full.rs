//! Full memory and a full disk.

use std::sync::Arc;

use super::ledger::Ledger;
use super::load::Load;
use super::{post, recovers, serve, turn, under_load};
use crate::helpers::{Redis, eventually};

/// Members that have expired take up the memory; pruning gives it back, and nobody has to do anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_is_503_for_visits_and_pruning_frees_the_way_back() {
    const EXPIRED: u64 = 400_000;
    /// For what the load adds, in bytes. The expired members take more than twice that.
    const ROOM: u64 = 16_000_000;
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &["--prune-schedule", "* * * * * *"]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 8);
    under_load(500).await;

    // At once, so that no pruning comes in between: members that have expired, and no memory for more.
    let info: String = redis.call(&["INFO", "memory"]);
    let used: u64 = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap();
    let fill = "for i = 1, ARGV[1] do redis.call('ZADD', 'segment:old', i, 'expired-' .. i) end";
    let calls = redis.calls("zremrangebyscore");
    let mut at_once = redis::pipe();
    at_once.atomic().cmd("EVAL").arg(fill).arg(0).arg(EXPIRED).ignore();
    at_once.cmd("ZADD").arg("segments").arg(0).arg("old").ignore();
    at_once.cmd("CONFIG").arg("SET").arg("maxmemory").arg(used + ROOM).ignore();
    at_once.exec(&mut redis.connection()).unwrap();
    eventually("a visit was refused", async || {
        service.metric(r#"estimator_redis_errors_total{kind="out_of_memory"}"#).await > 0
    })
    .await;
    // Counts go on, and are right: the load checks each.
    assert_eq!(service.count("old").await, 0);

    recovers(&service, "full memory").await;
    assert!(redis.calls("zremrangebyscore") > calls);
    eventually("all that expired is gone", async || redis.call::<u64>(&["EXISTS", "segment:old"]) == 0).await;
    load.stop().await;
    ledger.check("full memory", &mut redis.connection());
    assert!(service.terminate().success());
}

/// A disk that is full, for which a limit on the size of files stands: it needs no privileges, and can be lifted.
#[cfg(target_os = "linux")]
mod disk {
    use rlimit::{INFINITY, Resource, prlimit};

    use super::*;
    use crate::helpers::{Service, private_redis_connection, private_redis_pid};

    /// No file of the process may grow beyond `bytes`.
    fn limit_files(pid: u32, bytes: u64) {
        prlimit(pid.cast_signed(), Resource::FSIZE, Some((bytes, INFINITY)), None).unwrap();
    }

    /// More than a program's log, less than the visits of a second.
    const FULL: u64 = 100_000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_is_503_for_visits_until_there_is_room() {
        let _turn = turn().await;
        let folder = tempfile::tempdir().unwrap();
        // With `always`, Redis would end instead: see the next test.
        let redis = Redis::start_with(&["--appendfsync", "everysec"]);
        let service = serve(&folder, &redis.url(), &[]);
        let ledger = Arc::<Ledger>::default();
        let load = Load::start(service.address, &ledger, 9);
        under_load(300).await;

        limit_files(redis.pid(), FULL);
        eventually("a visit is refused", async || post(&service).await == 503).await;
        under_load(500).await;
        assert_eq!(post(&service).await, 503);
        assert_eq!(service.status_of("/segments/sports/count").await, 200);
        assert!(service.metric(r#"estimator_redis_errors_total{kind="misconf"}"#).await > 0);

        limit_files(redis.pid(), INFINITY);
        recovers(&service, "full disk").await;
        load.stop().await;
        ledger.check("full disk", &mut redis.connection());
        assert!(service.terminate().success());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_private_redis_that_a_full_disk_ends_is_back_when_there_is_room() {
        let _turn = turn().await;
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(folder.path(), &[]);
        let ledger = Arc::<Ledger>::default();
        let load = Load::start(service.address, &ledger, 10);
        under_load(300).await;

        let first = private_redis_pid(folder.path());
        // The one that is started in its place has the limit from the service.
        limit_files(service.pid(), FULL);
        limit_files(first, FULL);
        eventually("a visit is refused", async || post(&service).await == 503).await;
        eventually("Redis was started again", async || service.has_logged("starting it again")).await;
        under_load(2_000).await;
        assert_eq!(service.status_of("/healthz").await, 200);

        limit_files(service.pid(), INFINITY);
        // Whichever runs now has the limit still, and ends at the next visit.
        recovers(&service, "full disk, private Redis").await;
        assert_ne!(private_redis_pid(folder.path()), first);
        load.stop().await;
        ledger.check("full disk, private Redis", &mut private_redis_connection(folder.path()));
        assert!(service.terminate().success());
    }
}
