//! More load than Redis takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use segment_estimator::domain::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ledger::{Ledger, Sent};
use super::{either, is_soak, recovers, turn};
use crate::helpers::{Client, Proxy, Redis, Service, Weather, peak_memory};

/// Redis's answers take this long, so that a round does.
const ROUND: Duration = Duration::from_millis(200);
/// Visits that may wait for a round. With the round's time it makes the most that can be done: 5 rounds a second.
const WAITING: u64 = 100;
const CAPACITY: u64 = WAITING * 5;

/// What became of an offered load.
#[derive(Debug, Default)]
struct Outcome {
    done: AtomicU64,
    overloaded: AtomicU64,
    /// Of refusals, in microseconds.
    slowest_refusal: AtomicU64,
}

/// Sends so many visits a second for so long, whether or not the ones before were answered, as senders do that don't know of each
/// other.
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
            let visit = Sent { segment: 0, user, seen_at: start.as_millis() };
            let (client, ledger, outcome) = (Arc::clone(&client), Arc::clone(ledger), Arc::clone(&outcome));
            senders.spawn(async move { send(&client, &ledger, &outcome, visit).await });
        }
        while senders.try_join_next().is_some() {}
    }
    senders.join_all().await;
    Arc::into_inner(outcome).unwrap()
}

async fn send(client: &Client, ledger: &Ledger, outcome: &Outcome, visit: Sent) {
    ledger.attempt(&visit);
    let since = Instant::now();
    let request = client.request("POST", "/segments").header("content-type", "application/json");
    let answer = request.body(visit.json()).send().await.unwrap();
    match answer.status() {
        StatusCode::NO_CONTENT => {
            ledger.acknowledge(&visit);
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
async fn four_times_the_load_is_refused_at_once_and_as_much_is_done_as_before() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = ["--redis-url", &proxy.url(), "--max-waiting", &WAITING.to_string(), "--redis-timeout", "20s"];
    let service = Service::start(folder.path(), &settings);
    let ledger = Arc::<Ledger>::default();
    assert_eq!(super::post(&service).await, 204);
    proxy.turn(Weather::Slow(ROUND));

    let seconds = either(3, 60);
    let peak = offer(&service, &ledger, CAPACITY, seconds).await;
    let memory = peak_memory(service.pid());
    let over = offer(&service, &ledger, 4 * CAPACITY, seconds).await;
    println!("overload: {peak:?} at the peak, {over:?} at four times that");
    assert!(over.overloaded.load(Relaxed) > over.done.load(Relaxed), "{over:?}");
    let (goodput, of_peak) = (over.done.load(Relaxed), peak.done.load(Relaxed));
    assert!(!is_soak() || goodput * 10 >= of_peak * 9, "{goodput} done, {of_peak} at the peak");
    assert!(!is_soak() || over.slowest_refusal.load(Relaxed) < 500_000, "{over:?}");
    let more = peak_memory(service.pid()).saturating_sub(memory);
    println!("overload: {more} KiB of memory more");
    assert!(more < 64 * 1_024, "{more} KiB more");

    proxy.turn(Weather::Fine);
    recovers(&service, "overload").await;
    sleep(ROUND).await;
    ledger.check("overload", &mut redis.connection());
    assert!(service.terminate().success());
}
