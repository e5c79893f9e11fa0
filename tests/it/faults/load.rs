//! Load: single visits, batches and counts, all at once, with an account of every answer.

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

use super::ledger::{Ledger, SEGMENTS, Sent};
use crate::helpers::{Client, PATIENCE, count_path};

/// Requests that go on until they are stopped.
pub struct Load {
    stop: CancellationToken,
    senders: JoinSet<Tally>,
}

/// What became of the requests of a load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Answered 2xx.
    pub done: u64,
    /// Answered 503.
    pub refused: u64,
    /// Not answered: the connection could not be made, or broke.
    pub broken: u64,
    /// The longest that a single visit or a count took.
    pub slowest: Duration,
    /// The longest that a batch took.
    pub slowest_batch: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Single,
    Batch,
    Count,
}

/// An answer that came whole.
struct Answer {
    status: StatusCode,
    body: String,
}

/// What one sender has, and does.
struct Sender {
    client: Client,
    ledger: Arc<Ledger>,
    random: StdRng,
    started: Timestamp,
    tally: Tally,
}

impl Load {
    /// What senders send.
    const SENDERS: [Kind; 12] = {
        use Kind::{Batch, Count, Single};
        [Single, Single, Single, Single, Single, Single, Single, Single, Batch, Batch, Count, Count]
    };
    /// Users that visits are of. Fewer than the visits, so that many visits are repetitions, later and earlier ones.
    const USERS: u32 = 20_000;

    /// Starts sending to the service at `address`; `seed` decides what.
    pub fn start(address: SocketAddr, ledger: &Arc<Ledger>, seed: u64) -> Self {
        Self::start_some(address, ledger, seed, &Self::SENDERS)
    }

    /// As [`Self::start`], without counts: they are wrong where acknowledged visits may be lost.
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

    /// Lets what is under way be answered, and sends nothing more. A wrong answer to any request panics here.
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
    /// A visit of the day before the start: it can't expire, and is never ahead of the service's clock.
    fn visit(&mut self) -> Sent {
        const DAY: i64 = 24 * 60 * 60 * 1_000;
        Sent {
            segment: self.random.random_range(0..SEGMENTS.len()),
            user: self.random.random_range(0..Load::USERS),
            seen_at: self.started.as_millis() - self.random.random_range(0..DAY),
        }
    }

    async fn post_visit(&mut self) {
        let visit = self.visit();
        self.ledger.attempt(&visit);
        let request = self.client.request("POST", "/segments").header("content-type", "application/json");
        let Some(answer) = self.timely_answer(request.body(visit.json())).await else { return };
        if answer.status == StatusCode::NO_CONTENT {
            self.ledger.acknowledge(&visit);
        }
    }

    async fn post_batch(&mut self) {
        let visits: Vec<_> = (0..self.random.random_range(1..300)).map(|_| self.visit()).collect();
        let lines: String = visits.iter().map(|visit| visit.json() + "\n").collect();
        visits.iter().for_each(|visit| self.ledger.attempt(visit));
        let since = Instant::now();
        let answer = self.answer(self.client.lines_request(lines)).await;
        self.tally.slowest_batch = self.tally.slowest_batch.max(since.elapsed());
        let Some(answer) = answer else { return };
        let report = answer.json();
        let done = if answer.status == StatusCode::OK {
            assert_eq!(report["accepted"], visits.len(), "{report}");
            visits.len()
        } else {
            usize::try_from(report["done_through_line"].as_u64().unwrap_or(0)).unwrap()
        };
        visits[..done].iter().for_each(|visit| self.ledger.acknowledge(visit));
    }

    /// A count is right, or it is 503.
    async fn count(&mut self) {
        let segment = self.random.random_range(0..SEGMENTS.len());
        let (fewest, _) = self.ledger.bounds(segment);
        let request = self.client.request("GET", &count_path(SEGMENTS[segment]));
        let Some(answer) = self.timely_answer(request).await else { return };
        if answer.status != StatusCode::OK {
            return;
        }
        let (count, (_, most)) = (answer.json()["count"].as_u64().unwrap(), self.ledger.bounds(segment));
        assert!((fewest..=most).contains(&count), "{count} users, but at least {fewest} and at most {most} were sent");
    }

    /// As `answer`, of a request that has a deadline.
    async fn timely_answer(&mut self, request: RequestBuilder) -> Option<Answer> {
        let since = Instant::now();
        let answer = self.answer(request).await;
        self.tally.slowest = self.tally.slowest.max(since.elapsed());
        answer
    }

    /// Sends a request, which must be answered with 2xx or 503, if it is. An answer may break off, too.
    async fn answer(&mut self, request: RequestBuilder) -> Option<Answer> {
        /// A pause after a failure, so that a service that refuses at once isn't asked all the time.
        const PAUSE: Duration = Duration::from_millis(5);
        /// Redis's words for who has a slot. They are for the service, and not for its callers.
        const REDIRECTIONS: [&str; 3] = ["MOVED", "ASK", "TRYAGAIN"];
        let response = match request.timeout(PATIENCE).send().await {
            Ok(response) => response,
            Err(error) => {
                assert!(!error.is_timeout(), "not answered within {PATIENCE:?}");
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
