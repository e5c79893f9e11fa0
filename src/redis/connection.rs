//! One shared connection to one server. It connects when it is first used and reconnects after a failure.
//!
//! The `ConnectionManager` of the `redis` crate keeps a connection that timed out or that answers `READONLY`, and gives
//! up for good if a connect fails with anything but an I/O error, such as a wrong password
//! (`src/aio/connection_manager.rs` of redis 1.8). This service must recover from all of these by itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, cmd};
use tokio::sync::OwnedMutexGuard;

use super::deadline::Deadline;
use super::error::is_of_a_replica;
use super::handshake::{Role, connect};
use super::resolver::Resolver;
use super::{Error, Limits};
use crate::telemetry::Metrics;

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Inner>);

struct Inner {
    resolver: Arc<dyn Resolver>,
    config: AsyncConnectionConfig,
    limits: Limits,
    /// `None` before the first use and after a failure.
    established: Mutex<Option<Established>>,
    state: Arc<SharedState>,
    metrics: Arc<Metrics>,
}

/// State that several connections to the same server share.
#[derive(Default)]
struct SharedState {
    /// Locked while a task connects. Tasks that wait for the lock share its failure.
    last_failure: Arc<tokio::sync::Mutex<LastFailure>>,
    /// Incremented when a connection turns out to lead to a replica. Connections of earlier generations may lead there
    /// as well, and are not used again.
    generation: AtomicU64,
}

type LastFailure = Option<(Instant, Error)>;

/// An established connection; clones share it.
#[derive(Clone)]
struct Established(Arc<EstablishedInner>);

struct EstablishedInner {
    connection: MultiplexedConnection,
    generation: u64,
    /// Set by every exchange, cleared by the heartbeat.
    was_used: AtomicBool,
}

impl Connection {
    /// Number of pipelines that may wait to be written before callers are blocked. Group commit keeps them few, but
    /// probes and pruning must not wait behind the library's default of 50.
    const MAX_QUEUED_PIPELINES: usize = 1024;
    /// After a failed connect, callers get its error for this long instead of a new attempt each.
    const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
    /// How often a connection is checked. One that was idle since the last check is sent a `PING`.
    const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

    /// Returns a handle on the server whose address `resolver` returns. It connects at the first [`Self::send`].
    pub(crate) fn new(resolver: Arc<dyn Resolver>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        // The deadline of each request is the only timeout.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(Self::MAX_QUEUED_PIPELINES);
        let (established, state) = (Mutex::new(None), Arc::default());
        Self(Arc::new(Inner { resolver, config, limits, established, state, metrics }))
    }

    /// Returns a second connection to the same server. Both share the last failure and the generation.
    pub(crate) fn sibling(&self) -> Self {
        let Inner { resolver, config, limits, state, metrics, .. } = &*self.0;
        Self(Arc::new(Inner {
            resolver: Arc::clone(resolver),
            config: config.clone(),
            limits: *limits,
            established: Mutex::new(None),
            state: Arc::clone(state),
            metrics: Arc::clone(metrics),
        }))
    }

    /// Whether both handles share a connection.
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the address of the server, if it is known.
    pub(crate) fn address(&self) -> Option<String> {
        self.0.resolver.address()
    }

    /// Sends `pipeline`, which must ignore errors, and returns a result for each of its commands. Sends it once more if
    /// the connection breaks. Discards the connection if it breaks or times out.
    ///
    /// Answers of a replica, such as `READONLY`, are returned as they are: the pipeline is not sent again, and all
    /// connections reconnect before their next use.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the server didn't answer by `deadline`.
    pub(crate) async fn send(&self, pipeline: &Pipeline, deadline: Deadline) -> Result<Vec<RedisResult<Value>>, Error> {
        match self.send_once(pipeline, deadline).await {
            Err(Error::Lost(_)) => self.send_once(pipeline, deadline).await,
            answers => answers,
        }
    }

    /// As [`Self::send`], but doesn't send `pipeline` again if the connection breaks.
    ///
    /// # Errors
    ///
    /// As [`Self::send`], and [`Error::Lost`] if the connection breaks. The server may have run the commands.
    pub(crate) async fn send_once(
        &self,
        pipeline: &Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        self.exchange(pipeline, deadline).await.map_err(|error| match error {
            Error::Timeout(_) => self.located(error),
            error => error,
        })
    }

    async fn exchange(&self, pipeline: &Pipeline, deadline: Deadline) -> Result<Vec<RedisResult<Value>>, Error> {
        let established = match self.current() {
            Some(current) => current,
            None => deadline.bound(self.establish()).await?,
        };
        established.0.was_used.store(true, Ordering::Relaxed);
        let mut connection = established.0.connection.clone();
        let query = async {
            let answers = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
            answers.map_err(|error| Error::from_answer(error, pipeline))
        };
        let answers = deadline.bound(query).await;
        match &answers {
            Ok(answers) if answers.iter().any(is_of_a_replica) => self.invalidate_generation(established.0.generation),
            Err(Error::Lost(_) | Error::Timeout(_)) => self.discard(&established),
            _ => {}
        }
        answers
    }

    /// Reconnects if the sentinels report a different primary.
    pub(crate) async fn confirm_primary(&self) {
        let generation = self.generation();
        if self.0.resolver.has_moved(self.0.limits.connect).await {
            self.invalidate_generation(generation);
        }
    }

    /// Reconnects all connections to this server before they are used again.
    pub(crate) fn invalidate(&self) {
        self.invalidate_generation(self.generation());
    }

    /// Returns the connection, after connecting if there is none.
    async fn establish(&self) -> Result<Established, Error> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let last_failure = Arc::clone(&self.0.state.last_failure).lock_owned().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        if let Some((at, error)) = &*last_failure
            && at.elapsed() < Self::RECONNECT_PAUSE
        {
            return Err(error.clone());
        }
        // In a task of its own: a caller that is cancelled must not cancel the connect that the next one waits for.
        let connecting = tokio::spawn(self.clone().connect(last_failure));
        connecting.await.unwrap_or_else(|stopped| Err(Error::Connect(stopped.to_string())))
    }

    async fn connect(self, mut last_failure: OwnedMutexGuard<LastFailure>) -> Result<Established, Error> {
        let generation = self.generation();
        let connected = self.resolve_and_connect().await;
        self.0.metrics.redis.connected(connected.is_ok());
        match connected {
            Ok(connection) => {
                let was_used = AtomicBool::new(true);
                let established = Established(Arc::new(EstablishedInner { connection, generation, was_used }));
                *self.lock() = Some(established.clone());
                tokio::spawn(Self::keep_alive(Arc::downgrade(&self.0), Arc::downgrade(&established.0)));
                *last_failure = None;
                Ok(established)
            }
            Err(error) => {
                if let Error::Replica(_) = error {
                    // Other connections may have survived the change of roles.
                    self.invalidate_generation(generation);
                }
                *last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn resolve_and_connect(&self) -> Result<MultiplexedConnection, Error> {
        let Inner { resolver, config, limits, .. } = &*self.0;
        let deadline = Deadline::after(limits.connect);
        let url = resolver.resolve(limits.connect).await?;
        let connected = connect(&url, config, Role::Primary, deadline).await;
        connected.map_err(|error| if resolver.is_one_of_several() { error.at(&url) } else { error })
    }

    /// Sends a `PING` whenever the connection was idle, until it is replaced or dropped. If no answer comes in time,
    /// reconnects, so that a dead connection is replaced before a request needs it.
    ///
    /// It needs one timer per connection and none per request. The future is boxed because connecting spawns it again.
    fn keep_alive(connection: Weak<Inner>, established: Weak<EstablishedInner>) -> BoxFuture<'static, ()> {
        async move {
            loop {
                tokio::time::sleep(Self::HEARTBEAT_INTERVAL).await;
                let (Some(connection), Some(established)) = (connection.upgrade(), established.upgrade()) else {
                    return;
                };
                let (connection, established) = (Self(connection), Established(established));
                if !connection.current().is_some_and(|current| current.ptr_eq(&established)) {
                    return;
                }
                // An exchange in flight has a deadline of its own. This task and the slot hold the other two
                // references.
                let is_in_use =
                    established.0.was_used.swap(false, Ordering::Relaxed) || Arc::strong_count(&established.0) > 2;
                if is_in_use || established.is_alive(connection.0.limits.answer).await {
                    continue;
                }
                tracing::debug!(?connection, "an idle connection to Redis is dead, reconnecting");
                connection.discard(&established);
                // If this fails, the next request logs the failure.
                let _ = connection.establish().await;
                return;
            }
        }
        .boxed()
    }

    fn current(&self) -> Option<Established> {
        self.lock().clone().filter(|established| established.0.generation == self.generation())
    }

    fn generation(&self) -> u64 {
        self.0.state.generation.load(Ordering::Relaxed)
    }

    /// Starts a new generation, unless one was started since `generation`.
    fn invalidate_generation(&self, generation: u64) {
        let current = &self.0.state.generation;
        let _ = current.compare_exchange(generation, generation + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Drops `established`, unless it was replaced already.
    fn discard(&self, established: &Established) {
        let mut slot = self.lock();
        if slot.as_ref().is_some_and(|current| current.ptr_eq(established)) {
            *slot = None;
        }
    }

    /// Adds the address to `error` if there are several servers.
    fn located(&self, error: Error) -> Error {
        match self.address() {
            Some(address) if self.0.resolver.is_one_of_several() => error.at(address),
            _ => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Established>> {
        // The value is replaced as a whole, so that it is valid even if a thread panicked.
        self.0.established.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Established {
    /// Whether both are the same connection.
    fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a `PING` is answered within `timeout`. An error reply is an answer, too.
    async fn is_alive(&self, timeout: Duration) -> bool {
        let mut connection = self.0.connection.clone();
        let ping = cmd("PING");
        match tokio::time::timeout(timeout, ping.query_async::<Value>(&mut connection)).await {
            Ok(answer) => !answer.is_err_and(|error| error.is_unrecoverable_error()),
            Err(_) => false,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.resolver)
    }
}
