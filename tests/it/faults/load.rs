//! Load of single visits, batches and counts at the same time. The ledger gets every visit and its acknowledgement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{RequestBuilder, StatusCode};
use segment_estimator::domain::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, PendingVisit};
use super::visits::{self, SEGMENTS, SentVisit};
use crate::helpers::{Client, TIMEOUT, count_path};

/// Senders of requests, until they are stopped.
pub struct Load {
    stop: CancellationToken,
    senders: JoinSet<Tally>,
}

/// Outcomes of the requests of a load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Requests answered 2xx.
    pub done: u64,
    /// Requests answered 503.
    pub refused: u64,
    /// Requests without an answer: the connection was refused or broke.
    pub broken: u64,
    /// The longest time of a single visit or a count.
    pub slowest: Duration,
    /// The longest time of a batch.
    pub slowest_batch: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Single,
    Batch,
    Count,
}

/// Complete response.
struct Answer {
    status: StatusCode,
    body: String,
}

/// Sender of one kind of request, one at a time.
struct Sender {
    client: Client,
    ledger: Arc<Ledger>,
    random: StdRng,
    started: Timestamp,
    tally: Tally,
}

impl Load {
    /// The kind of request of each sender.
    const SENDERS: [Kind; 12] = {
        use Kind::{Batch, Count, Single};
        [Single, Single, Single, Single, Single, Single, Single, Single, Batch, Batch, Count, Count]
    };
    /// Fewer users than visits, so that many visits are repetitions with a later or an earlier time.
    const USERS: u32 = 20_000;

    /// Starts senders to the service at `address`. `seed` determines the visits.
    pub fn start(address: SocketAddr, ledger: &Arc<Ledger>, seed: u64) -> Self {
        Self::start_some(address, ledger, seed, &Self::SENDERS)
    }

    /// Starts senders without those of counts, which are wrong if acknowledged visits are lost.
    pub fn start_without_counts(address: SocketAddr, ledger: &Arc<Ledger>, seed: u64) -> Self {
        Self::start_some(address, ledger, seed, &Self::SENDERS[..10])
    }

    fn start_some(address: SocketAddr, ledger: &Arc<Ledger>, seed: u64, senders: &[Kind]) -> Self {
        let (kinds, stop, mut senders) = (senders, CancellationToken::new(), JoinSet::new());
        for (number, &kind) in (0..).zip(kinds) {
            let mut sender = Sender {
                client: Client::new(address),
                ledger: Arc::clone(ledger),
                random: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number)),
                started: Timestamp::now(),
                tally: Tally::default(),
            };
            let stop = stop.clone();
            senders.spawn(async move {
                while !stop.is_cancelled() {
                    match kind {
                        Kind::Single => sender.post_visit().await,
                        Kind::Batch => sender.post_batch().await,
                        Kind::Count => sender.count().await,
                    }
                }
                sender.tally
            });
        }
        Self { stop, senders }
    }

    /// Stops the senders after the requests in flight. Panics if a request got a wrong answer.
    pub async fn stop(self) -> Tally {
        self.stop.cancel();
        let mut sum = Tally::default();
        for Tally { done, refused, broken, slowest, slowest_batch } in self.senders.join_all().await {
            sum.done += done;
            sum.refused += refused;
            sum.broken += broken;
            sum.slowest = sum.slowest.max(slowest);
            sum.slowest_batch = sum.slowest_batch.max(slowest_batch);
        }
        sum
    }
}

impl Sender {
    /// Returns visits of a random user to one or several segments, on the day before the start. They can't expire, and
    /// are never ahead of the service's clock.
    fn random_visits(&mut self) -> Vec<SentVisit> {
        const DAY: i64 = 24 * 60 * 60 * 1_000;
        // One in four has several segments.
        let count = if self.random.random_ratio(1, 4) { self.random.random_range(2..=SEGMENTS.len()) } else { 1 };
        let first = self.random.random_range(0..SEGMENTS.len());
        let user = self.random.random_range(0..Load::USERS);
        let seen_at = self.started.as_millis() - self.random.random_range(0..DAY);
        (first..first + count).map(|segment| SentVisit { segment: segment % SEGMENTS.len(), user, seen_at }).collect()
    }

    fn attempt(&self, visits: &[SentVisit]) -> Vec<PendingVisit> {
        visits.iter().map(|visit| self.ledger.attempt(*visit)).collect()
    }

    async fn post_visit(&mut self) {
        let visits = self.random_visits();
        let pending = self.attempt(&visits);
        let request = self.client.request("POST", "/segments").header("content-type", "application/json");
        let Some(answer) = self.timely_answer(request.body(visits::json(&visits))).await else { return };
        if answer.status == StatusCode::NO_CONTENT {
            pending.into_iter().for_each(|visit| self.ledger.acknowledge(visit));
        }
    }

    async fn post_batch(&mut self) {
        let visits: Vec<_> = (0..self.random.random_range(1..300)).map(|_| self.random_visits()).collect();
        let lines: String = visits.iter().map(|line| visits::json(line) + "\n").collect();
        let pending: Vec<_> = visits.iter().map(|line| self.attempt(line)).collect();
        let since = Instant::now();
        let answer = self.answer(self.client.lines_request(lines)).await;
        self.tally.slowest_batch = self.tally.slowest_batch.max(since.elapsed());
        let Some(answer) = answer else { return };
        let report = answer.json();
        let done = if answer.status == StatusCode::OK {
            assert_eq!(report["accepted"], visits.iter().map(Vec::len).sum::<usize>(), "{report}");
            visits.len()
        } else {
            usize::try_from(report["done_through_line"].as_u64().unwrap_or(0)).unwrap()
        };
        pending.into_iter().take(done).flatten().for_each(|visit| self.ledger.acknowledge(visit));
    }

    /// Asks for a count, which must be right or 503.
    async fn count(&mut self) {
        let segment = self.random.random_range(0..SEGMENTS.len());
        let (fewest, _) = self.ledger.bounds(segment);
        let request = self.client.request("GET", &count_path(SEGMENTS[segment]));
        let Some(answer) = self.timely_answer(request).await else { return };
        if answer.status != StatusCode::OK {
            return;
        }
        let (answer, (_, most)) = (answer.json(), self.ledger.bounds(segment));
        let count = answer["count"].as_u64().unwrap();
        // An estimate of a sample lies within six standard errors.
        let error = answer["error_95"].as_f64().map_or(0, |error| (6.0 / 1.96 * error * count as f64) as u64);
        assert!(
            (fewest.saturating_sub(error)..=most + error).contains(&count),
            "{answer}, but at least {fewest} were acknowledged and at most {most} were sent"
        );
    }

    /// Sends a request with a deadline and records its duration.
    async fn timely_answer(&mut self, request: RequestBuilder) -> Option<Answer> {
        let since = Instant::now();
        let answer = self.answer(request).await;
        self.tally.slowest = self.tally.slowest.max(since.elapsed());
        answer
    }

    /// Sends a request. Panics at another answer than 2xx or 503. Returns `None` if the connection breaks.
    async fn answer(&mut self, request: RequestBuilder) -> Option<Answer> {
        /// Pause after a failure, so that a service that refuses at once isn't flooded.
        const PAUSE: Duration = Duration::from_millis(5);
        /// Redirections of a cluster, which callers must not see.
        const REDIRECTIONS: [&str; 3] = ["MOVED", "ASK", "TRYAGAIN"];
        let response = match request.timeout(TIMEOUT).send().await {
            Ok(response) => response,
            Err(error) => {
                assert!(!error.is_timeout(), "no answer within {TIMEOUT:?}");
                self.tally.broken += 1;
                tokio::time::sleep(PAUSE).await;
                return None;
            }
        };
        let status = response.status();
        if status.is_success() {
            self.tally.done += 1;
            return Some(Answer { status, body: response.text().await.ok()? });
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        self.tally.refused += 1;
        tokio::time::sleep(PAUSE).await;
        let body = response.text().await.ok()?;
        assert!(!REDIRECTIONS.iter().any(|word| body.contains(word)), "{body}");
        Some(Answer { status, body })
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
