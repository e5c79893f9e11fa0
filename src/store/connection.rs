//! One shared connection to Redis that is made when it is first needed and made again when it breaks.
//!
//! redis's own `ConnectionManager` was the first choice. It keeps a connection that timed out or that answers
//! `READONLY`, and gives up for good when a connect fails with anything but an I/O error, such as a wrong password
//! (`src/aio/connection_manager.rs` of redis 1.8). A service that must recover by itself needs the opposite.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Pipeline, RedisResult};
use tokio::sync::OwnedMutexGuard;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::error::Error;
use super::greeting::connect;
use super::outage::OutageLog;
use super::url::RedisUrl;
use crate::telemetry::{Metrics, TRACED, Traffic};

/// How long to wait for Redis, and how many may.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection to be made.
    pub connect: Duration,
    /// For an answer, a needed connect included.
    pub answer: Duration,
    /// Visits, and as many counts, that may wait for the next round trip.
    pub waiting: usize,
}

/// A handle on the shared connection; clones share it.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    url: RedisUrl,
    config: AsyncConnectionConfig,
    limits: Limits,
    /// The connection in use; none before the first use and after a break.
    link: Mutex<Option<Link>>,
    /// Held while somebody connects; those who wait for it, for this connection or another to the same Redis, share the failure.
    last_failure: Arc<tokio::sync::Mutex<LastFailure>>,
    /// Goes up when a connection turns out to lead to a replica. The others lead there, too: none of an earlier era is used again.
    era: Arc<AtomicU64>,
    outages: Arc<OutageLog>,
    metrics: Arc<Metrics>,
    /// What it is for.
    traffic: Traffic,
}

type LastFailure = Option<(Instant, Error)>;

/// One established connection. Clones are the same connection, and are told apart from others by its address.
#[derive(Clone)]
struct Link {
    connection: Arc<MultiplexedConnection>,
    era: u64,
}

impl Connection {
    /// How many pipelines may wait to be written before callers wait for room. Rounds keep them few, but probes and
    /// pruning must not wait behind the library's 50.
    const QUEUE: usize = 1024;
    /// After a failed connect, callers share its error for this long instead of trying again each.
    const RETRY_PAUSE: Duration = Duration::from_millis(50);

    /// A handle on the Redis at `url`. Nothing is sent before the first query.
    ///
    /// # Errors
    ///
    /// A line that names the setting when a file that stands beside the URL can't be used.
    pub fn new(url: RedisUrl, limits: Limits, metrics: Arc<Metrics>) -> Result<Self, String> {
        // Every connect reads the files again; this is so that a mistake is told at the start.
        url.client()?;
        // `connect` and `query` set the time limits.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(Self::QUEUE);
        Ok(Self(Arc::new(Shared {
            url,
            config,
            limits,
            link: Mutex::new(None),
            last_failure: Arc::default(),
            era: Arc::default(),
            outages: Arc::default(),
            metrics,
            traffic: Traffic::Other,
        })))
    }

    /// Another connection to the same Redis, under the same limits, for `traffic`. They share what is known of it.
    pub(super) fn for_traffic(&self, traffic: Traffic) -> Self {
        let Shared { url, config, limits, last_failure, era, outages, metrics, .. } = &*self.0;
        Self(Arc::new(Shared {
            url: url.clone(),
            config: config.clone(),
            limits: *limits,
            link: Mutex::new(None),
            last_failure: Arc::clone(last_failure),
            era: Arc::clone(era),
            outages: Arc::clone(outages),
            metrics: Arc::clone(metrics),
            traffic,
        }))
    }

    /// The limits it was made with.
    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// What it is measured with.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Has `error` logged.
    pub(super) fn note_failure(&self, error: &Error) {
        self.0.outages.failed(error, self.0.traffic, Instant::now());
    }

    /// Sends `pipeline` in one round trip and gives its answers, one for each command.
    ///
    /// When the connection turns out to be broken the pipeline is sent once more on a new one, so that a Redis that was
    /// restarted between two requests costs nobody an error. Every pipeline must therefore be safe to run twice.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time or answered any of the commands with an error.
    pub async fn query<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Error> {
        let (answer, link) = self.exchange(pipeline).await;
        self.take_note(answer.as_ref().err(), link);
        answer
    }

    /// As [`Self::query`], with a result for each command: one that Redis refuses doesn't take the others with it.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time.
    pub async fn query_each<T: FromRedisValue>(&self, pipeline: &mut Pipeline) -> Result<Vec<Result<T, Error>>, Error> {
        self.query_settled(pipeline, |_| {}).await
    }

    /// As [`Self::query_each`]. Before failures are counted and logged, `settle` says which of the results are.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time.
    pub(super) async fn query_settled<T: FromRedisValue>(
        &self,
        pipeline: &mut Pipeline,
        settle: impl FnOnce(&mut Vec<Result<T, Error>>),
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let (mut results, link) = self.exchange_each(pipeline).await;
        if let Ok(results) = &mut results {
            settle(results);
        }
        match &results {
            Ok(results) => self.take_note(results.iter().filter_map(|result| result.as_ref().err()), link),
            Err(error) => self.take_note([error], link),
        }
        results
    }

    /// As [`Self::query_each`], for what Redis may well refuse: a refusal is for the caller alone and is not logged. It doesn't
    /// say that Redis is well either, since a refused `PING` may be among them.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time.
    pub(super) async fn ask_each<T: FromRedisValue>(
        &self,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let (results, link) = self.exchange_each(pipeline).await;
        if !results.as_ref().is_ok_and(|results| results.iter().any(Result::is_err)) {
            self.take_note(results.as_ref().err(), link);
        }
        results
    }

    /// Exchanges `pipeline` for a result for each command.
    async fn exchange_each<T: FromRedisValue>(
        &self,
        pipeline: &mut Pipeline,
    ) -> (Result<Vec<Result<T, Error>>, Error>, Option<Link>) {
        let (answer, link) = self.exchange::<Vec<RedisResult<T>>>(pipeline.ignore_errors()).await;
        let results = answer.map(|results| {
            let results = results.into_iter().enumerate();
            let results =
                results.map(|(index, result)| result.map_err(|error| Error::from_command(error, pipeline, index)));
            results.collect::<Vec<_>>()
        });
        (results, link)
    }

    /// Sends `pipeline`, once more if the connection broke. Says on which connection it was sent last.
    async fn exchange<T: FromRedisValue>(&self, pipeline: &Pipeline) -> (Result<T, Error>, Option<Link>) {
        let mut used = None;
        let since = Instant::now();
        let limit = self.0.limits.answer;
        let answer = tokio::time::timeout(limit, async {
            match self.send(pipeline, &mut used).await {
                Err(Error::Lost(_)) => self.send(pipeline, &mut used).await,
                answer => answer,
            }
        });
        let span = redis_span(pipeline);
        let answer = answer.instrument(span.clone()).await.unwrap_or(Err(Error::Timeout(limit)));
        if let Err(error) = &answer {
            span.record("error.type", error.kind());
            span.record("otel.status_code", "ERROR");
        }
        self.0.metrics.redis.answered(self.0.traffic, since);
        (answer, used)
    }

    /// Has the failures of an exchange counted and logged, or that there was none, and forgets a connection that is not worth
    /// keeping.
    fn take_note<'a>(&self, failures: impl IntoIterator<Item = &'a Error>, used: Option<Link>) {
        let mut has_failed = false;
        for error in failures {
            self.0.metrics.redis.failed(error.kind());
            self.note_failure(error);
            has_failed |= error.is_outage();
            let Some(link) = &used else { continue };
            if error.is_of_a_replica() {
                self.end_era(link.era);
            } else if error.spoils_the_connection() {
                self.discard(link);
            }
        }
        if !has_failed && self.0.outages.is_failing() {
            self.0.outages.answered(self.0.traffic, Instant::now());
        }
    }

    /// Sends `pipeline` once. `used` says on which connection, also to whoever gives up waiting.
    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline, used: &mut Option<Link>) -> Result<T, Error> {
        let link = used.insert(self.link().await?);
        let mut connection = MultiplexedConnection::clone(&link.connection);
        let answer = pipeline.query_async(&mut connection).await.map_err(|error| Error::from_answer(error, pipeline));
        if let Err(Error::Lost(_)) = answer {
            self.discard(link);
        }
        answer
    }

    /// The connection in use, made now if there is none.
    async fn link(&self) -> Result<Link, Error> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let last_failure = Arc::clone(&self.0.last_failure).lock_owned().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some((at, error)) = &*last_failure
            && at.elapsed() < Self::RETRY_PAUSE
        {
            return Err(error.clone());
        }
        // In a task of its own: a caller that goes away must not break off what the next one needs too.
        let connecting = tokio::spawn(self.clone().connect(last_failure));
        connecting.await.unwrap_or_else(|stopped| Err(Error::Connect(stopped.to_string())))
    }

    async fn connect(self, mut last_failure: OwnedMutexGuard<LastFailure>) -> Result<Link, Error> {
        let era = self.era();
        let connected = connect(&self.0.url, &self.0.config, self.0.limits.connect).await;
        self.0.metrics.redis.connected(connected.is_ok());
        match connected {
            Ok(connection) => {
                let link = Link { connection: Arc::new(connection), era };
                *self.slot() = Some(link.clone());
                *last_failure = None;
                Ok(link)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn current(&self) -> Option<Link> {
        self.slot().clone().filter(|link| link.era == self.era())
    }

    fn era(&self) -> u64 {
        self.0.era.load(Ordering::Relaxed)
    }

    /// Has all connections made anew, unless that was done since `era`.
    fn end_era(&self, era: u64) {
        let _ = self.0.era.compare_exchange(era, era + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Forgets `link`, unless somebody has replaced it already.
    fn discard(&self, link: &Link) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(&current.connection, &link.connection)) {
            *slot = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Link>> {
        // Nothing panics while it holds the lock; were it otherwise, the value would still be whole.
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.url)
    }
}

/// The span of a pipeline, named as the [conventions](https://opentelemetry.io/docs/specs/semconv/database/redis/) say. Keys
/// are left out, which hold names of segments.
fn redis_span(pipeline: &Pipeline) -> Span {
    tracing::info_span!(
        target: TRACED,
        "PIPELINE",
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "redis",
        db.operation.name = "PIPELINE",
        db.operation.batch.size = pipeline.cmd_iter().count(),
        error.type = Empty,
    )
}
