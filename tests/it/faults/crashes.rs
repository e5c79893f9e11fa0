//! `kill -9`, of Redis and of the service.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use rstest::rstest;

use super::ledger::{Findings, Ledger};
use super::load::Load;
use super::{by_the_deadline, recovers, serve, turn, under_load};
use crate::helpers::{
    Redis, Service, eventually, is_running, kill, private_redis, private_redis_connection, private_redis_pid,
};

const ROUNDS: u64 = 20;

/// `always` is what ships. With `no` the file is written before the answer as well, and a kill takes nothing from the system's cache;
/// a power loss would.
#[rstest]
#[case::always("always")]
#[case::no("no")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_again_and_again_keeps_every_acknowledged_visit(#[case] appendfsync: &str) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendfsync", appendfsync]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let what = format!("Redis killed, appendfsync {appendfsync}");
    let load = Load::start(service.address, &ledger, 1);
    for round in 1..=ROUNDS {
        under_load(50 + 10 * round).await;
        redis.stop();
        under_load(20).await;
        redis.start_again();
        ledger.check(&format!("{what}, round {round}"), &mut redis.connection());
        recovers(&service, &what).await;
    }
    by_the_deadline(&what, &load.stop().await);
    ledger.check(&what, &mut redis.connection());
    assert!(service.terminate().success());
}

/// `everysec` puts off the write while a sync is under way, and answers all the same. So a kill may take what was acknowledged; how
/// much is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everysec_a_killed_redis_makes_nothing_up() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendfsync", "everysec"]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start_without_counts(service.address, &ledger, 12);
    for round in 1..=ROUNDS {
        under_load(50 + 10 * round).await;
        redis.stop();
        redis.start_again();
        let Findings { acknowledged, missing, too_early, made_up, .. } = ledger.compare(&mut redis.connection());
        println!(
            "Redis killed, appendfsync everysec, round {round}: of {acknowledged} acknowledged visits {} are missing and {} too early",
            missing.len(),
            too_early.len()
        );
        assert!(acknowledged > 0);
        assert_eq!(made_up, Vec::<String>::new());
        recovers(&service, "Redis killed, appendfsync everysec").await;
    }
    load.stop().await;
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_killed_again_and_again_loses_nothing_and_leaves_no_redis() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::<Ledger>::default();
    let mut past = Vec::new();
    for round in 1..=ROUNDS {
        let service = Service::start(folder.path(), &[]);
        past.push(private_redis_pid(folder.path()));
        if round > 1 {
            ledger.check(&format!("service killed, round {round}"), &mut private_redis_connection(folder.path()));
        }
        let load = Load::start(service.address, &ledger, round);
        under_load(50 + 10 * round).await;
        // Every other time the machine's end takes both.
        if round % 2 == 0 {
            kill("-KILL", private_redis_pid(folder.path()));
        }
        service.kill();
        load.stop().await;
        // And now and then a write that was under way is left half done in the file.
        if round % 4 == 0 {
            eventually("Redis has ended", async || past.iter().all(|redis| !is_running(*redis))).await;
            tear(folder.path());
        }
    }
    let service = Service::start(folder.path(), &[]);
    ledger.check("service killed", &mut private_redis_connection(folder.path()));
    recovers(&service, "service killed").await;
    let last = private_redis_pid(folder.path());
    assert!(service.terminate().success());
    past.push(last);
    for redis in past {
        assert!(!is_running(redis), "an orphan");
    }
}

/// Leaves half a command at the end of the append-only file of the private Redis in `folder`.
fn tear(folder: &Path) {
    let files = fs::read_dir(private_redis(folder).join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
    let last = files.filter(|file| file.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
    let half = b"*5\r\n$4\r\nZADD\r\n$14\r\nsegment:sports\r\n$2\r\nGT\r\n$13\r\n17953";
    OpenOptions::new().append(true).open(last).unwrap().write_all(half).unwrap();
}
