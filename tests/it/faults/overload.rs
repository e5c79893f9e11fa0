//! More load than Redis can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use segment_estimator::domain::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ledger::Ledger;
use super::visits::{self, SentVisit};
use super::{exclusive, is_soak, post_probe, quick_or_soak, wait_for_recovery};
use crate::helpers::{Client, Proxy, Redis, Service, Toxic, peak_memory};

/// Latency of Redis's replies, and so the time of a batch.
const BATCH_TIME: Duration = Duration::from_millis(200);
/// The `max_waiting` of the service: visits that may wait for the next batch.
const MAX_WAITING: u64 = 100;
/// Visits per second that the service can record: five batches.
const CAPACITY: u64 = MAX_WAITING * 5;

/// Outcome of an offered load.
#[derive(Debug, Default)]
struct Outcome {
    done: AtomicU64,
    overloaded: AtomicU64,
    /// In microseconds.
    slowest_refusal: AtomicU64,
}

/// Sends `rate` visits per second without waiting for the answers, as independent senders do.
async fn offer(service: &Service, ledger: &Arc<Ledger>, rate: u64, seconds: u64) -> Outcome {
    const TICK: Duration = Duration::from_millis(10);
    let (client, outcome) = (Arc::new(Client::new(service.address)), Arc::new(Outcome::default()));
    let (mut senders, mut ticks, start) = (JoinSet::new(), interval(TICK), Timestamp::now());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let each = rate / 100;
    for tick in 0..seconds * 100 {
        ticks.tick().await;
        for number in 0..each {
            let user = u32::try_from(tick * each + number).unwrap();
            let visit = SentVisit { segment: 0, user, seen_at: start.as_millis() };
            let (client, ledger, outcome) = (Arc::clone(&client), Arc::clone(ledger), Arc::clone(&outcome));
            senders.spawn(async move { send(&client, &ledger, &outcome, visit).await });
        }
        while senders.try_join_next().is_some() {}
    }
    senders.join_all().await;
    Arc::into_inner(outcome).unwrap()
}

async fn send(client: &Client, ledger: &Ledger, outcome: &Outcome, visit: SentVisit) {
    let pending = ledger.attempt(visit);
    let since = Instant::now();
    let request = client.request("POST", "/segments").header("content-type", "application/json");
    let answer = request.body(visits::json(&[visit])).send().await.unwrap();
    match answer.status() {
        StatusCode::NO_CONTENT => {
            ledger.acknowledge(pending);
            outcome.done.fetch_add(1, Relaxed);
        }
        status => {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key("retry-after"));
            let problem = answer.text().await.unwrap();
            assert!(problem.contains("problem:overloaded"), "{problem}");
            outcome.overloaded.fetch_add(1, Relaxed);
            outcome.slowest_refusal.fetch_max(u64::try_from(since.elapsed().as_micros()).unwrap(), Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_refuses_excess_load_at_once_and_keeps_its_goodput() {
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = ["--redis-url", &proxy.url(), "--max-waiting", &MAX_WAITING.to_string(), "--redis-timeout", "20s"];
    let service = Service::start(folder.path(), &settings);
    let ledger = Arc::<Ledger>::default();
    assert_eq!(post_probe(&service).await, 204);
    ledger.fault_injected("latency");
    proxy.set_toxic(Toxic::Latency(BATCH_TIME));

    let seconds = quick_or_soak(3, 60);
    let peak = offer(&service, &ledger, CAPACITY, seconds).await;
    let memory = peak_memory(service.pid());
    let over = offer(&service, &ledger, 4 * CAPACITY, seconds).await;
    println!("overload: {peak:?} at the peak, {over:?} at four times that");
    assert!(over.overloaded.load(Relaxed) > over.done.load(Relaxed), "{over:?}");
    let (goodput, of_peak) = (over.done.load(Relaxed), peak.done.load(Relaxed));
    assert!(!is_soak() || goodput * 10 >= of_peak * 9, "{goodput} done, {of_peak} at the peak");
    assert!(!is_soak() || over.slowest_refusal.load(Relaxed) < 500_000, "{over:?}");
    let growth = peak_memory(service.pid()).saturating_sub(memory);
    println!("overload: memory grew by {growth} KiB");
    assert!(growth < 64 * 1_024, "memory grew by {growth} KiB");

    proxy.remove_toxic();
    ledger.fault_healed("latency");
    wait_for_recovery(&service, "overload").await;
    sleep(BATCH_TIME).await;
    ledger.check("overload", &mut redis.connection());
    assert!(service.terminate().success());
}
