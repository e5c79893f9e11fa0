//! `kill -9` of Redis and of the service.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use rstest::rstest;

use super::ledger::{Comparison, Ledger};
use super::load::Load;
use super::{assert_deadlines, quick_or_soak, run_load_for, serve, side_by_side, wait_for_recovery};
use crate::helpers::{
    Redis, Service, eventually, is_running, kill, private_redis, private_redis_connection, private_redis_pid,
};

/// Returns the number of kills.
fn rounds() -> u64 {
    quick_or_soak(6, 20)
}

/// `always` is the setting that ships. With `no` Redis also writes the file before it answers, and a kill loses nothing
/// of the page cache. A power loss would.
#[rstest]
#[case::always("always")]
#[case::no("no")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_keeps_every_acknowledged_visit_when_redis_is_killed(#[case] appendfsync: &str) {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendfsync", appendfsync]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let what = format!("Redis killed, appendfsync {appendfsync}");
    let load = Load::start(service.address, &ledger, 1);
    for round in 1..=rounds() {
        run_load_for(50 + 10 * round).await;
        ledger.fault_injected("Redis killed");
        redis.stop();
        run_load_for(20).await;
        redis.start_again();
        ledger.fault_healed("Redis killed");
        ledger.check(&format!("{what}, round {round}"), &mut redis.connection());
        wait_for_recovery(&service, &what).await;
    }
    assert_deadlines(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}

/// With `everysec` Redis postpones the write while a sync is in progress, and answers nevertheless. A kill may lose
/// acknowledged visits then. The test prints how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_with_everysec_makes_nothing_up_when_redis_is_killed() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendfsync", "everysec"]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start_without_counts(service.address, &ledger, 12);
    for round in 1..=rounds() {
        run_load_for(50 + 10 * round).await;
        ledger.fault_injected("Redis killed");
        redis.stop();
        redis.start_again();
        ledger.fault_healed("Redis killed");
        let Comparison { acknowledged, missing, too_early, made_up, .. } = ledger.compare(&mut redis.connection());
        println!(
            "Redis killed, appendfsync everysec, round {round}: of {acknowledged} acknowledged visits {} are missing and {} too early",
            missing.len(),
            too_early.len()
        );
        assert!(acknowledged > 0);
        assert_eq!(made_up, []);
        wait_for_recovery(&service, "Redis killed, appendfsync everysec").await;
    }
    load.stop().await;
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_keeps_every_acknowledged_visit_when_the_service_is_killed_and_leaves_no_redis() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::<Ledger>::default();
    let mut servers = Vec::new();
    for round in 1..=rounds() {
        let service = Service::start(folder.path(), &[]);
        servers.push(private_redis_pid(folder.path()));
        if round > 1 {
            ledger.check(&format!("service killed, round {round}"), &mut private_redis_connection(folder.path()));
        }
        let load = Load::start(service.address, &ledger, round);
        run_load_for(50 + 10 * round).await;
        // Every other time Redis is killed as well, as when the machine ends.
        if round % 2 == 0 {
            ledger.fault_injected("Redis killed");
            kill("-KILL", private_redis_pid(folder.path()));
        }
        ledger.fault_injected("service killed");
        service.kill();
        load.stop().await;
        // Every fourth time the file ends within a write.
        if round % 4 == 0 {
            eventually("Redis has ended", async || servers.iter().all(|redis| !is_running(*redis))).await;
            ledger.fault_injected("append-only file torn");
            tear(folder.path());
        }
    }
    let service = Service::start(folder.path(), &[]);
    ledger.check("service killed", &mut private_redis_connection(folder.path()));
    wait_for_recovery(&service, "service killed").await;
    let last = private_redis_pid(folder.path());
    assert!(service.terminate().success());
    servers.push(last);
    for redis in servers {
        assert!(!is_running(redis), "Redis {redis} is an orphan");
    }
}

/// Appends half a command to the append-only file of the private Redis in `folder`.
fn tear(folder: &Path) {
    let files = fs::read_dir(private_redis(folder).join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
    let last = files.filter(|file| file.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
    let half = b"*5\r\n$4\r\nZADD\r\n$14\r\nsegment:sports\r\n$2\r\nGT\r\n$13\r\n17953";
    OpenOptions::new().append(true).open(last).unwrap().write_all(half).unwrap();
}
