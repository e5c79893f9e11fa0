//! Faults, under load, on real processes: nothing that was acknowledged is missing, no answer is wrong, and the service comes
//! back by itself. docs/reliability.md has a row for each.
//!
//! `make test` runs them in their short form. `make soak` sets `SOAK`, for longer runs, and lets them check deadlines, which on a
//! machine that is busy with other tests say nothing. What they saw is printed, for `cargo test -- --nocapture`.

#![allow(clippy::print_stdout, reason = "figures, for who asks for them")]

mod clients;
mod cluster;
mod crashes;
mod forgotten;
mod frozen;
mod full;
mod hostile;
mod ledger;
mod load;
mod moves;
mod network;
mod overload;
mod refusals;
mod schedule;
mod sentinel;
mod steady;
mod stop;
mod stored;

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use self::ledger::Ledger;
use self::load::Tally;
use crate::helpers::{Service, eventually};

/// How long Redis may take in these tests.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long replicas get nothing before their primary is lost, in milliseconds. Longer than what waits for them.
const BEHIND: u64 = 700;

/// The time within which the service must be back after a fault.
const RECOVERY: Duration = Duration::from_secs(5);

/// Waits for this test's turn: each of these loads both cores.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Whether this is the long form.
fn is_soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// One of two values: for `make test`, and for `make soak`.
fn either<T>(test: T, soak: T) -> T {
    if is_soak() { soak } else { test }
}

/// Lets the load run for so long. The only thing that these tests sleep for.
async fn under_load(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// The service as a process of its own, on the Redis at `url`, which may take [`REDIS_TIMEOUT`].
fn serve(folder: &TempDir, url: &str, arguments: &[&str]) -> Service {
    serve_with(folder, &[&["--redis-url", url], arguments].concat())
}

/// As [`serve`], where the arguments say which Redis.
fn serve_with(folder: &TempDir, arguments: &[&str]) -> Service {
    let timeout = format!("{}ms", REDIS_TIMEOUT.as_millis());
    Service::start(folder.path(), &[&["--redis-timeout", &timeout], arguments].concat())
}

/// Posts a visit of now, and says what the answer was.
async fn post(service: &Service) -> StatusCode {
    service.post_visit(&json!({ "user_id": "probe", "segment": "probes" })).await.status()
}

/// Waits until the service records and counts again, which it must by itself and, where that can be measured, soon.
async fn recovers(service: &Service, what: &str) {
    let since = Instant::now();
    eventually(what, async || {
        let batch = service.post_array(&json!([{ "user_id": "probe", "segment": "probes" }])).await.status();
        let (recorded, count) = (post(service).await, service.status_of("/segments/probes/count").await);
        let is_ready = service.status_of("/readyz").await == 200;
        recorded == StatusCode::NO_CONTENT && batch == StatusCode::OK && count == StatusCode::OK && is_ready
    })
    .await;
    within(what, since.elapsed(), RECOVERY);
}

/// As [`recovers`], with users of all partitions, which takes all servers. It must be soon after `since`.
async fn recovers_everywhere(service: &Service, what: &str, since: Instant) {
    /// Of sixteen partitions, each has some of so many users.
    const PROBES: u32 = 200;
    let probes = (0..PROBES).map(|probe| json!({ "user_id": format!("probe{probe}"), "segment": "probes" }));
    let probes = Value::from_iter(probes);
    eventually(what, async || {
        let recorded = service.post_array(&probes).await.status();
        recorded == StatusCode::OK && service.status_of("/segments/probes/count").await == StatusCode::OK
    })
    .await;
    recovers(service, what).await;
    within(what, since.elapsed(), RECOVERY);
}

/// Waits until the service counts again, though it may not record yet. It must be soon after `since`.
async fn counts_recover(service: &Service, what: &str, since: Instant) {
    eventually(what, async || service.status_of("/segments/probes/count").await == StatusCode::OK).await;
    within(&format!("{what}, counts"), since.elapsed(), RECOVERY);
}

/// For so long, nothing is acknowledged. Answers that were on their way when Redis failed may still arrive before.
async fn nothing_is_acknowledged(ledger: &Ledger, millis: u64) {
    eventually("nothing more is acknowledged", async || {
        let before = ledger.acknowledged();
        under_load(millis).await;
        ledger.acknowledged() == before
    })
    .await;
}

/// Checks a time where it means something: nothing else runs beside a soak.
fn within(what: &str, took: Duration, limit: Duration) {
    println!("{what}: took {took:?}");
    assert!(!is_soak() || took <= limit, "{what}: took {took:?}, longer than {limit:?}");
}

/// Checks that requests were answered by their deadline and a tenth of a second. A batch waits twice: for its turn, and for Redis.
fn by_the_deadline(what: &str, tally: &Tally) {
    const MORE: Duration = Duration::from_millis(100);
    println!("{what}: {tally:?}");
    within(&format!("{what}, the slowest request"), tally.slowest, REDIS_TIMEOUT + MORE);
    within(&format!("{what}, the slowest batch"), tally.slowest_batch, 2 * REDIS_TIMEOUT + MORE);
}
