//! Which server is the primary at the moment, as Redis Sentinel knows.
//!
//! redis's own `SentinelClient` was looked at. It asks the sentinels one after the other without a limit of time, and never
//! again once it is connected (`src/sentinel.rs` of redis 1.8): a primary that was cut off from the rest would be believed until
//! it comes back.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue as _, Pipeline, RedisResult, Value, pipe};

use super::connection::{Node, Used};
use super::{Error, RedisUrl};

/// The sentinels of one primary, and what they said last.
pub(crate) struct Sentinel {
    sentinels: Vec<Node>,
    /// What they call the primary.
    master: String,
    /// How the servers are reached, whatever their address is.
    servers: RedisUrl,
    last: Mutex<Option<Answer>>,
}

/// What a sentinel says: a host, a port, and of which epoch that is. The later, the truer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinel {
    /// How long to wait for those that are slower than most.
    const GRACE: Duration = Duration::from_millis(50);

    /// The `sentinels` of the primary that they call `master`. Its servers are reached as `servers` says, but for the address.
    pub(crate) fn new(sentinels: Vec<Node>, master: String, servers: RedisUrl) -> Self {
        Self { sentinels, master, servers, last: Mutex::new(None) }
    }

    /// The primary.
    ///
    /// # Errors
    ///
    /// An [`Error`] when no sentinel tells it within half of `limit`.
    pub(crate) fn primary(&self, limit: Duration) -> BoxFuture<'_, Result<RedisUrl, Error>> {
        // In a box, since a connection to the primary would otherwise contain those to the sentinels, which are of the same type.
        Box::pin(async move {
            let answer = self.ask(limit / 2).await?;
            let url = self.servers.at(&answer.host, answer.port);
            *self.last() = Some(answer);
            Ok(url)
        })
    }

    /// Whether the primary is another than it was when it was asked for last. When no sentinel answers that isn't known.
    pub(crate) fn has_moved(&self, limit: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let place = |answer: &Answer| (answer.host.clone(), answer.port);
            let last = self.last().as_ref().map(place);
            match (last, self.ask(limit).await) {
                (Some(last), Ok(answer)) => place(&answer) != last,
                _ => false,
            }
        })
    }

    /// Where the primary is, and what it is called, as far as is known.
    pub(crate) fn last_primary(&self) -> Option<String> {
        self.last().as_ref().map(|answer| format!("{}:{}, {}", answer.host, answer.port, self.master))
    }

    /// Asks all sentinels at once and takes the answer of the latest epoch: during a failover not all know the same. Once most have
    /// answered, the rest have [`Self::GRACE`] to do so: one that is lost with its machine must not hold up all.
    async fn ask(&self, limit: Duration) -> Result<Answer, Error> {
        let asking = self.sentinels.iter().map(|sentinel| async move {
            let mut used = Used::default();
            let asking = self.ask_one(sentinel, &mut used);
            let answer = tokio::time::timeout(limit, asking).await.unwrap_or(Err(Error::Timeout(limit)));
            answer.inspect_err(|error| used.take_note(error))
        });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let (mut latest, mut failure, mut answers) = (None::<Answer>, None, 0);
        loop {
            let is_enough = answers > self.sentinels.len() / 2;
            let next = match tokio::time::timeout(if is_enough { Self::GRACE } else { limit }, asking.next()).await {
                Ok(Some(next)) => next,
                Ok(None) | Err(_) => break,
            };
            answers += usize::from(next.is_ok());
            match next {
                Ok(answer) if latest.as_ref().is_none_or(|latest| latest.epoch < answer.epoch) => latest = Some(answer),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        latest.ok_or_else(|| {
            let why = failure.map(|error| error.to_string()).unwrap_or_default();
            Error::Connect(format!("no sentinel tells which server is {:?}: {why}", self.master))
        })
    }

    async fn ask_one(&self, sentinel: &Node, used: &mut Used) -> Result<Answer, Error> {
        let mut pipeline = pipe();
        // The first names the new primary before the failover is over, the second has the epoch.
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answers = sentinel.exchange(pipeline.ignore_errors(), used).await?;
        read(answers, &pipeline).and_then(|answer| {
            answer.ok_or_else(|| Error::Connect(format!("a sentinel knows no master {:?}", self.master)))
        })
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Answer>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sentinel answered to `pipeline`; none when it doesn't know the name.
fn read(answers: Vec<RedisResult<Value>>, pipeline: &Pipeline) -> Result<Option<Answer>, Error> {
    let mut answers = answers.into_iter();
    let (Some(address), Some(master)) = (answers.next(), answers.next()) else { return Ok(None) };
    let address = address.map_err(|error| Error::from_command(error, pipeline, 0))?;
    let Ok((host, port)) = <(String, u16)>::from_redis_value(address) else { return Ok(None) };
    // Names and values in turn. Without an epoch it is the earliest.
    let fields = master.ok().and_then(|master| Vec::<String>::from_redis_value(master).ok()).unwrap_or_default();
    let epoch = fields.chunks_exact(2).find(|field| field[0] == "config-epoch");
    let epoch = epoch.and_then(|field| field[1].parse().ok()).unwrap_or(0);
    Ok(Some(Answer { epoch, host, port }))
}

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.master)
    }
}
