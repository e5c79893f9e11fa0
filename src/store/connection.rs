//! One shared connection to Redis that is made when it is first needed and made again when it breaks.
//!
//! redis's own `ConnectionManager` was the first choice. It keeps a connection that timed out or that answers
//! `READONLY`, and gives up for good when a connect fails with anything but an I/O error, such as a wrong password
//! (`src/aio/connection_manager.rs` of redis 1.8). A service that must recover by itself needs the opposite.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    ServerErrorKind,
};

use super::outage::OutageLog;

/// Where Redis is: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path/to/socket`.
///
/// `Debug` and `Display` show the address alone, not the user and the password.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

impl RedisUrl {
    /// Reads a Redis URL.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong; it never repeats `url`, which may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with("rediss://") {
            return Err("asks for TLS, which is not supported yet".to_owned());
        }
        url.into_connection_info().map(Self).map_err(|error| match error.detail() {
            Some(detail) => format!("is not a usable Redis URL: {detail}"),
            None => "is not a usable Redis URL; it looks like redis://host:6379".to_owned(),
        })
    }

    /// The Redis that listens on the Unix socket at `path`.
    #[must_use]
    pub fn unix(path: PathBuf) -> Self {
        let address = redis::ConnectionAddr::Unix(path);
        Self(address.into_connection_info().expect("an address alone is complete"))
    }
}

/// Connects to the Redis at `url`, asks whether it can serve, and hangs up.
pub(super) async fn probe(url: &RedisUrl, limit: Duration) -> Result<(), RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
    let client = Client::open(url.0.clone())?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").exec_async(&mut connection).await
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.addr(), f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long to wait for Redis.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection to be made.
    pub connect: Duration,
    /// For an answer, a needed connect included.
    pub answer: Duration,
}

/// Why Redis did not do what was asked. Whether a write took effect is then unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("can't connect to Redis: {0}")]
    Connect(#[source] RedisError),
    /// The connection broke, and so did the one made after it.
    #[error("lost the connection to Redis: {0}")]
    Lost(#[source] RedisError),
    /// No answer came in time.
    #[error("no answer from Redis within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The key of a segment or of the index holds something else than a sorted set.
    #[error("`{command}` met a key that is not a sorted set")]
    WrongType {
        /// The command's name and its key.
        command: String,
    },
    /// Redis answered with any other error, such as `LOADING`, `READONLY`, `MISCONF` or `NOPERM`.
    #[error("Redis refused: {0}")]
    Refused(#[source] RedisError),
}

impl Error {
    /// What a log or a metric calls this failure: a fixed word for each kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Lost(_) => "lost",
            Self::Timeout(_) => "timeout",
            Self::WrongType { .. } => "wrong_type",
            Self::Refused(_) => "refused",
        }
    }

    fn from_answer(error: RedisError, pipeline: &Pipeline) -> Self {
        if error.is_io_error() {
            return Self::Lost(error);
        }
        let failed = error.clone().into_server_errors();
        match failed.iter().flat_map(|errors| errors.iter()).find(|(_, error)| error.code() == "WRONGTYPE") {
            Some((index, _)) => Self::WrongType { command: command_and_key(pipeline, *index) },
            None => Self::Refused(error),
        }
    }

    /// Whether this very connection can do no more work, or is not worth keeping: it broke, it hangs, it gave something
    /// that isn't Redis's protocol, or it leads to a replica, and a new one may find the new primary.
    fn spoils_the_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Timeout(_) => true,
            Self::Refused(error) => matches!(
                error.kind(),
                ErrorKind::Parse
                    | ErrorKind::AuthenticationFailed
                    | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
            ),
            Self::Connect(_) | Self::WrongType { .. } => false,
        }
    }
}

/// The name and the first argument of a command, such as `ZADD segment:sports`: enough to find the key, and no user's id.
fn command_and_key(pipeline: &Pipeline, index: usize) -> String {
    let command = pipeline.cmd_iter().nth(index);
    let words = command.iter().flat_map(|command| command.args_iter()).take(2).filter_map(|arg| match arg {
        redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A handle on the shared connection; clones share it.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    url: RedisUrl,
    client: Client,
    config: AsyncConnectionConfig,
    limits: Limits,
    /// The connection in use; none before the first use and after a break.
    link: Mutex<Option<Link>>,
    /// Held by the one caller that connects; those who wait for it share its failure.
    last_failure: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
    outages: OutageLog,
}

/// One established connection. Clones are the same connection, and are told apart from others by their address.
#[derive(Clone)]
struct Link(Arc<MultiplexedConnection>);

impl Connection {
    /// How many commands may wait to be written before callers wait for room. The library's 50 is less than the
    /// requests that one event loop takes in at once.
    const QUEUE: usize = 1024;
    /// After a failed connect, callers share its error for this long instead of trying again each.
    const RETRY_PAUSE: Duration = Duration::from_millis(50);

    /// A handle on the Redis at `url`. Nothing is sent before the first query.
    ///
    /// # Errors
    ///
    /// A sentence when the URL asks for something this build doesn't have.
    pub fn new(url: RedisUrl, limits: Limits) -> Result<Self, String> {
        // Without TCP_NODELAY a small command would wait for the acknowledgement of the one before it.
        let info = url.0.clone().set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(|error| error.to_string())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits.connect))
            // `query` sets the time limit, for the connect and the answer together.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(Self::QUEUE);
        Ok(Self(Arc::new(Shared {
            url,
            client,
            config,
            limits,
            link: Mutex::new(None),
            last_failure: tokio::sync::Mutex::new(None),
            outages: OutageLog::default(),
        })))
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
        let mut used = None;
        let limit = self.0.limits.answer;
        let answer = tokio::time::timeout(limit, async {
            match self.send(pipeline, &mut used).await {
                Err(Error::Lost(_)) => self.send(pipeline, &mut used).await,
                answer => answer,
            }
        });
        let answer = answer.await.unwrap_or(Err(Error::Timeout(limit)));
        match &answer {
            Ok(_) if self.0.outages.is_failing() => self.0.outages.answered(Instant::now()),
            Ok(_) => {}
            Err(error) => {
                self.0.outages.failed(error, Instant::now());
                if let Some(link) = used.filter(|_| error.spoils_the_connection()) {
                    self.discard(&link);
                }
            }
        }
        answer
    }

    /// Sends `pipeline` once. `used` says on which connection, also to whoever gives up waiting.
    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline, used: &mut Option<Link>) -> Result<T, Error> {
        let link = used.insert(self.link().await?);
        let mut connection = MultiplexedConnection::clone(&link.0);
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
        let mut last_failure = self.0.last_failure.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some((at, error)) = &*last_failure
            && at.elapsed() < Self::RETRY_PAUSE
        {
            return Err(Error::Connect(error.clone()));
        }
        match self.0.client.get_multiplexed_async_connection_with_config(&self.0.config).await {
            Ok(connection) => {
                let link = Link(Arc::new(connection));
                *self.slot() = Some(link.clone());
                *last_failure = None;
                Ok(link)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                Err(Error::Connect(error))
            }
        }
    }

    fn current(&self) -> Option<Link> {
        self.slot().clone()
    }

    /// Forgets `link`, unless somebody has replaced it already.
    fn discard(&self, link: &Link) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(&current.0, &link.0)) {
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
