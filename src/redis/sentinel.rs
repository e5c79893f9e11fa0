//! The primary, as Redis Sentinel reports it.
//!
//! The `SentinelClient` of the `redis` crate queries the sentinels one after the other without a timeout, and never
//! again after it has connected (`src/sentinel.rs` of redis 1.8). During a network partition it would stay with a
//! primary that was replaced.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue as _, Pipeline, RedisResult, Value, pipe};

use super::connection::Connection;
use super::deadline::Deadline;
use super::resolver::Resolver;
use super::{Error, RedisUrl};

/// The sentinels of one primary, and their last report.
pub(crate) struct Sentinel {
    sentinels: Vec<Connection>,
    /// The name of the primary.
    master: String,
    /// The URL of the servers, but for the address.
    servers: RedisUrl,
    last: Mutex<Option<PrimaryReport>>,
}

/// A sentinel's report: the address of the primary and the epoch of its configuration. The latest epoch counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PrimaryReport {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinel {
    /// Time to wait for the other sentinels after a majority has answered.
    const GRACE: Duration = Duration::from_millis(50);

    /// Returns the `sentinels` of the primary called `master`. `servers` is the URL of its servers, but for the
    /// address.
    pub(crate) fn new(sentinels: Vec<Connection>, master: String, servers: RedisUrl) -> Self {
        Self { sentinels, master, servers, last: Mutex::new(None) }
    }

    /// Queries all sentinels concurrently and returns the report of the latest epoch, because they disagree during a
    /// failover. After a majority has answered, the others have [`Self::GRACE`], so that a dead sentinel doesn't delay
    /// every failover.
    async fn fetch_report(&self, timeout: Duration) -> Result<PrimaryReport, Error> {
        let mut reports: FuturesUnordered<_> =
            self.sentinels.iter().map(|sentinel| self.fetch_report_of(sentinel, Deadline::after(timeout))).collect();
        let (mut latest, mut failure, mut answers) = (None::<PrimaryReport>, None, 0);
        loop {
            let is_enough = answers > self.sentinels.len() / 2;
            let timeout = if is_enough { Self::GRACE } else { timeout };
            let next = match tokio::time::timeout(timeout, reports.next()).await {
                Ok(Some(next)) => next,
                Ok(None) | Err(_) => break,
            };
            answers += usize::from(next.is_ok());
            match next {
                Ok(report) if latest.as_ref().is_none_or(|latest| latest.epoch < report.epoch) => latest = Some(report),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        latest.ok_or_else(|| {
            let why = failure.map(|error| error.to_string()).unwrap_or_default();
            Error::Connect(format!("no sentinel reports the address of {:?}: {why}", self.master))
        })
    }

    async fn fetch_report_of(&self, sentinel: &Connection, deadline: Deadline) -> Result<PrimaryReport, Error> {
        let mut pipeline = pipe();
        // The first command returns the new primary before the failover is complete. The second one returns the epoch.
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answers = sentinel.send(pipeline.ignore_errors(), deadline).await?;
        parse(answers, &pipeline)?
            .ok_or_else(|| Error::Connect(format!("a sentinel monitors no master {:?}", self.master)))
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<PrimaryReport>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Sentinel {
    fn resolve(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisUrl, Error>> {
        Box::pin(async move {
            // The other half is for connecting.
            let report = self.fetch_report(timeout / 2).await?;
            let url = self.servers.at(&report.host, report.port);
            *self.last() = Some(report);
            Ok(url)
        })
    }

    fn has_moved(&self, timeout: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let address = |report: &PrimaryReport| (report.host.clone(), report.port);
            let last = self.last().as_ref().map(address);
            match (last, self.fetch_report(timeout).await) {
                (Some(last), Ok(report)) => address(&report) != last,
                _ => false,
            }
        })
    }

    fn address(&self) -> Option<String> {
        self.last().as_ref().map(|report| format!("{}:{}, {}", report.host, report.port, self.master))
    }

    fn is_one_of_several(&self) -> bool {
        true
    }
}

/// Parses the answers to `pipeline`; `None` if the sentinel doesn't monitor this master.
fn parse(answers: Vec<RedisResult<Value>>, pipeline: &Pipeline) -> Result<Option<PrimaryReport>, Error> {
    let mut answers = answers.into_iter();
    let (Some(address), Some(master)) = (answers.next(), answers.next()) else { return Ok(None) };
    let address = address.map_err(|error| Error::from_command(error, pipeline, 0))?;
    let Ok((host, port)) = <(String, u16)>::from_redis_value(address) else { return Ok(None) };
    // Names and values alternate. A report without an epoch counts as the earliest.
    let fields = master.ok().and_then(|master| Vec::<String>::from_redis_value(master).ok()).unwrap_or_default();
    let epoch = fields.chunks_exact(2).find(|field| field[0] == "config-epoch");
    let epoch = epoch.and_then(|field| field[1].parse().ok()).unwrap_or(0);
    Ok(Some(PrimaryReport { epoch, host, port }))
}

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.master)
    }
}
