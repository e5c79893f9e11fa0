//! Faults under load, on real processes: no acknowledged visit is missing, no answer is wrong, and the service recovers
//! by itself. docs/reliability.md has a row for each fault.
//!
//! `make test` runs the tests in their short form. `make soak` sets `SOAK`, which makes them longer and checks
//! deadlines: on a machine that runs other tests at the same time, deadlines mean nothing. The tests print their
//! figures, for `cargo test -- --nocapture`.

#![allow(clippy::print_stdout, reason = "the figures of a soak")]

mod bounded;
mod clients;
mod cluster;
mod crashes;
mod data_loss;
mod frozen;
mod full;
mod hostile;
mod ledger;
mod load;
mod network;
mod overload;
mod refusals;
mod repartition;
mod schedule;
mod sentinel;
mod snapshot;
mod steady;
mod stop;
mod timeline;
mod visits;

use std::panic::Location;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::ledger::Ledger;
use self::load::Tally;
use crate::helpers::{Service, eventually};

/// The `redis_timeout` of the service in these tests.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long replicas lag behind before their primary is lost, in milliseconds. Longer than [`REDIS_TIMEOUT`], so that
/// no request waits for them any more.
const REPLICA_LAG: u64 = 700;

/// The time within which the service must recover from a fault.
const RECOVERY: Duration = Duration::from_secs(5);

/// Held by the fault tests that run.
static RUNNING: RwLock<()> = RwLock::const_new(());

/// Waits until no other fault test runs, for a test that measures, or whose servers elect a primary by timeouts.
async fn exclusive() -> RwLockWriteGuard<'static, ()> {
    RUNNING.write().await
}

/// Waits until no test that needs the machine to itself runs.
async fn side_by_side() -> RwLockReadGuard<'static, ()> {
    RUNNING.read().await
}

/// Returns whether the tests run in their long form.
fn is_soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// Returns the value for `make test` or the one for `make soak`.
fn quick_or_soak<T>(quick: T, soak: T) -> T {
    if is_soak() { soak } else { quick }
}

/// Lets the load run for so many milliseconds.
async fn run_load_for(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Starts the service on the Redis at `url`, with [`REDIS_TIMEOUT`].
fn serve(folder: &TempDir, url: &str, arguments: &[&str]) -> Service {
    serve_with(folder, &[&["--redis-url", url], arguments].concat())
}

/// Starts the service with [`REDIS_TIMEOUT`]. `arguments` name the Redis.
fn serve_with(folder: &TempDir, arguments: &[&str]) -> Service {
    let timeout = format!("{}ms", REDIS_TIMEOUT.as_millis());
    Service::start(folder.path(), &[&["--redis-timeout", &timeout], arguments].concat())
}

/// Posts a visit to a segment that the load doesn't use, and returns the status.
async fn post_probe(service: &Service) -> StatusCode {
    service.post_visit(&json!({ "user_id": "probe", "segment": "probes" })).await.status()
}

/// Waits until the service records and counts again. A soak asserts that this takes at most [`RECOVERY`].
#[track_caller]
fn wait_for_recovery(service: &Service, what: &str) -> impl Future<Output = ()> {
    recover(Location::caller(), service, what)
}

async fn recover(caller: &Location<'_>, service: &Service, what: &str) {
    let since = Instant::now();
    eventually(&format!("{caller}: {what}"), async || {
        let batch = service.post_array(&json!([{ "user_id": "probe", "segment": "probes" }])).await.status();
        let (recorded, count) = (post_probe(service).await, service.status_of("/segments/probes/count").await);
        let is_ready = service.status_of("/readyz").await == 200;
        recorded == StatusCode::NO_CONTENT && batch == StatusCode::OK && count == StatusCode::OK && is_ready
    })
    .await;
    assert_within_at(caller, what, since.elapsed(), RECOVERY);
}

/// Waits until the service records users of all partitions, which needs all servers, and counts them. A soak asserts
/// that this is at most [`RECOVERY`] after `since`.
#[track_caller]
fn wait_for_recovery_everywhere(service: &Service, what: &str, since: Instant) -> impl Future<Output = ()> {
    /// Enough users for each of sixteen partitions to have some.
    const PROBES: u32 = 200;
    let caller = Location::caller();
    async move {
        let probes = (0..PROBES).map(|probe| json!({ "user_id": format!("probe{probe}"), "segment": "probes" }));
        let probes = Value::from_iter(probes);
        eventually(&format!("{caller}: {what}"), async || {
            let recorded = service.post_array(&probes).await.status();
            recorded == StatusCode::OK && service.status_of("/segments/probes/count").await == StatusCode::OK
        })
        .await;
        recover(caller, service, what).await;
        assert_within_at(caller, what, since.elapsed(), RECOVERY);
    }
}

/// Waits until the service counts again, even if it doesn't record yet. A soak asserts that this is at most
/// [`RECOVERY`] after `since`.
#[track_caller]
fn wait_for_counts(service: &Service, what: &str, since: Instant) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let is_counted = async || service.status_of("/segments/probes/count").await == StatusCode::OK;
        eventually(&format!("{caller}: {what}"), is_counted).await;
        assert_within_at(caller, &format!("{what}, counts"), since.elapsed(), RECOVERY);
    }
}

/// Waits until nothing is acknowledged for so many milliseconds. Answers in flight at the time of the fault may arrive
/// before.
#[track_caller]
fn wait_for_silence(ledger: &Ledger, millis: u64) -> impl Future<Output = ()> {
    eventually("nothing more is acknowledged", async move || {
        let before = ledger.acknowledged();
        run_load_for(millis).await;
        ledger.acknowledged() == before
    })
}

/// Asserts in a soak that `took` is at most `limit`.
#[track_caller]
fn assert_within(what: &str, took: Duration, limit: Duration) {
    assert_within_at(Location::caller(), what, took, limit);
}

fn assert_within_at(caller: &Location<'_>, what: &str, took: Duration, limit: Duration) {
    println!("{what}: took {took:?}");
    assert!(!is_soak() || took <= limit, "{caller}: {what}: took {took:?}, longer than {limit:?}");
}

/// Asserts in a soak that requests ended at most 100 ms after their deadline. A batch has two: it waits for a permit
/// and for Redis.
#[track_caller]
fn assert_deadlines(what: &str, tally: &Tally) {
    const MORE: Duration = Duration::from_millis(100);
    println!("{what}: {tally:?}");
    assert_within(&format!("{what}, the slowest request"), tally.slowest, REDIS_TIMEOUT + MORE);
    assert_within(&format!("{what}, the slowest batch"), tally.slowest_batch, 2 * REDIS_TIMEOUT + MORE);
}
