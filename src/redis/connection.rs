//! One shared connection to one server, which is made when it is first needed and made again when it breaks.
//!
//! redis's own `ConnectionManager` was the first choice. It keeps a connection that timed out or that answers
//! `READONLY`, and gives up for good when a connect fails with anything but an I/O error, such as a wrong password
//! (`src/aio/connection_manager.rs` of redis 1.8). A service that must recover by itself needs the opposite.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, cmd};
use tokio::sync::OwnedMutexGuard;

use super::handshake::{Role, connect};
use super::sentinel::Sentinel;
use super::{Error, Limits, RedisUrl};
use crate::telemetry::Metrics;

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub(crate) struct Node(Arc<Shared>);

struct Shared {
    server: Server,
    config: AsyncConnectionConfig,
    limits: Limits,
    /// The connection in use; none before the first use and after a break.
    link: Mutex<Option<Link>>,
    known: Arc<Known>,
    metrics: Arc<Metrics>,
}

/// The connection that was used last for an exchange, so that who waits for it in vain can have it forgotten.
#[derive(Default)]
pub(crate) struct Used(Option<(Node, Link)>);

/// Which server it is.
#[derive(Clone)]
pub(crate) enum Server {
    /// The one with this address.
    At(Box<RedisUrl>),
    /// One of several, with this address, which is named when it can't be reached.
    Member(Box<RedisUrl>),
    /// The one that is the primary at the moment.
    Primary(Arc<Sentinel>),
}

/// What several connections to the same server share.
#[derive(Default)]
struct Known {
    /// Held while somebody connects; those who wait for it share the failure.
    last_failure: Arc<tokio::sync::Mutex<LastFailure>>,
    /// Goes up when a connection turns out to lead to a replica. The others lead there, too: none of an earlier era is used again.
    era: AtomicU64,
}

type LastFailure = Option<(Instant, Error)>;

/// One established connection. Clones are the same connection, and are told apart from others by its address.
#[derive(Clone)]
struct Link(Arc<Established>);

struct Established {
    connection: MultiplexedConnection,
    era: u64,
    /// Set by every exchange, cleared by the heartbeat.
    was_used: AtomicBool,
}

impl Node {
    /// How many pipelines may wait to be written before callers wait for room. Rounds keep them few, but probes and
    /// pruning must not wait behind the library's 50.
    const QUEUE: usize = 1024;
    /// After a failed connect, callers share its error for this long instead of trying again each.
    const RETRY_PAUSE: Duration = Duration::from_millis(50);

    /// How often a connection is looked at. One that nothing was sent on since the last look is sent a `PING`.
    const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

    /// A handle on `server`, within `limits`. Nothing is sent before the first exchange.
    pub(crate) fn new(server: Server, limits: Limits, metrics: Arc<Metrics>) -> Self {
        // Whoever waits for an answer sets the limit for it.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(Self::QUEUE);
        Self(Arc::new(Shared { server, config, limits, link: Mutex::new(None), known: Arc::default(), metrics }))
    }

    /// Another connection to the same server. They share what is known of it.
    pub(crate) fn another(&self) -> Self {
        let Shared { server, config, limits, known, metrics, .. } = &*self.0;
        Self(Arc::new(Shared {
            server: server.clone(),
            config: config.clone(),
            limits: *limits,
            link: Mutex::new(None),
            known: Arc::clone(known),
            metrics: Arc::clone(metrics),
        }))
    }

    /// Whether both are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Sends `pipeline`, once more if the connection broke, and gives what became of each command, whose errors it must be made
    /// to give one by one. `used` says on which connection it was sent last, also to whoever gives up waiting.
    pub(crate) async fn exchange(
        &self,
        pipeline: &Pipeline,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        match self.send(pipeline, used).await {
            Err(Error::Lost(_)) => self.send(pipeline, used).await,
            answer => answer,
        }
    }

    /// Where it is, if that is known.
    pub(crate) fn address(&self) -> Option<String> {
        match &self.0.server {
            Server::At(url) | Server::Member(url) => Some(url.to_string()),
            Server::Primary(sentinel) => sentinel.last_primary(),
        }
    }

    /// Has all connections to this server made anew if sentinels say that another is the primary by now.
    pub(crate) async fn confirm(&self) {
        if let Server::Primary(sentinel) = &self.0.server {
            let era = self.era();
            if sentinel.has_moved(self.0.limits.connect).await {
                self.end_era(era);
            }
        }
    }

    async fn send(&self, pipeline: &Pipeline, used: &mut Used) -> Result<Vec<RedisResult<Value>>, Error> {
        let (_, link) = used.0.insert((self.clone(), self.link().await?));
        link.0.was_used.store(true, Ordering::Relaxed);
        let mut connection = link.0.connection.clone();
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
        let last_failure = Arc::clone(&self.0.known.last_failure).lock_owned().await;
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
        let connected = self.0.server.connect(&self.0.config, self.0.limits.connect).await;
        self.0.metrics.redis.connected(connected.is_ok());
        match connected {
            Ok(connection) => {
                let link = Link(Arc::new(Established { connection, era, was_used: AtomicBool::new(true) }));
                *self.slot() = Some(link.clone());
                tokio::spawn(Self::keep_alive(Arc::downgrade(&self.0), Arc::downgrade(&link.0)));
                *last_failure = None;
                Ok(link)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Sends a `PING` whenever the connection was idle, until it is replaced or dropped. If no answer comes in time, connects
    /// again: what the network has forgotten is found before a request needs it.
    ///
    /// One timer for each connection, and none for a request. In a box, since connecting spawns this in turn.
    fn keep_alive(node: Weak<Shared>, link: Weak<Established>) -> BoxFuture<'static, ()> {
        async move {
            loop {
                tokio::time::sleep(Self::HEARTBEAT_INTERVAL).await;
                let (Some(node), Some(link)) = (node.upgrade().map(Self), link.upgrade().map(Link)) else { return };
                if !node.current().is_some_and(|current| current.is(&link)) {
                    return;
                }
                // An exchange that is in flight has a timeout of its own. This task and the slot have the link, too.
                let is_in_use = link.0.was_used.swap(false, Ordering::Relaxed) || Arc::strong_count(&link.0) > 2;
                if is_in_use || link.is_alive(node.0.limits.answer).await {
                    continue;
                }
                tracing::debug!(?node, "an idle connection to Redis is dead; connecting again");
                node.discard(&link);
                // A failure is for the next request to meet and to log.
                let _ = node.link().await;
                return;
            }
        }
        .boxed()
    }

    fn current(&self) -> Option<Link> {
        self.slot().clone().filter(|link| link.0.era == self.era())
    }

    fn era(&self) -> u64 {
        self.0.known.era.load(Ordering::Relaxed)
    }

    /// Has all connections made anew, unless that was done since `era`.
    fn end_era(&self, era: u64) {
        let _ = self.0.known.era.compare_exchange(era, era + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Forgets `link`, unless somebody has replaced it already.
    fn discard(&self, link: &Link) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|current| current.is(link)) {
            *slot = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Link>> {
        // Nothing panics while it holds the lock; were it otherwise, the value would still be whole.
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Whether both are the same connection.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a `PING` is answered on it within `limit`. An error is an answer, too.
    async fn is_alive(&self, limit: Duration) -> bool {
        let mut connection = self.0.connection.clone();
        let ping = cmd("PING");
        match tokio::time::timeout(limit, ping.query_async::<Value>(&mut connection)).await {
            Ok(answer) => !answer.is_err_and(|error| error.is_unrecoverable_error()),
            Err(_) => false,
        }
    }
}

impl Used {
    /// The same error, with the server that it was met at.
    pub(crate) fn name(&self, error: Error) -> Error {
        let address = self.0.as_ref().and_then(|(node, _)| node.address());
        match (error, address) {
            (Error::Timeout(limit), Some(address)) => Error::TimeoutAt(address, limit),
            (error, _) => error,
        }
    }

    /// Has the connection forgotten if `error`, which was met on it, shows that it is not worth keeping.
    pub(crate) fn take_note(&self, error: &Error) {
        let Some((node, link)) = &self.0 else { return };
        if error.is_of_a_replica() {
            node.end_era(link.0.era);
        } else if error.spoils_the_connection() {
            node.discard(link);
        }
    }
}

impl Server {
    /// Makes a connection to it, within `limit`.
    async fn connect(&self, config: &AsyncConnectionConfig, limit: Duration) -> Result<MultiplexedConnection, Error> {
        match self {
            Self::At(url) => connect(url, config, Role::Primary, limit).await,
            Self::Member(url) => {
                connect(url, config, Role::Primary, limit).await.map_err(|error| error.at(url.as_ref()))
            }
            Self::Primary(sentinel) => {
                let deadline = Instant::now() + limit;
                let url = sentinel.primary(limit).await?;
                let limit = deadline.saturating_duration_since(Instant::now());
                connect(&url, config, Role::Primary, limit).await.map_err(|error| error.at(&url))
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.server {
            Server::At(url) | Server::Member(url) => write!(f, "Node({url})"),
            Server::Primary(sentinel) => write!(f, "Node(the primary of {sentinel})"),
        }
    }
}
