//! The primary, as Redis Sentinel reports it.
//!
//! The `SentinelClient` of the `redis` crate asks the sentinels one after the other without a timeout, and never again once it is
//! connected (`src/sentinel.rs` of redis 1.8). It would use a primary that was cut off from the rest until that comes back.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue as _, Pipeline, RedisResult, Value, pipe};

use super::connection::Connection;
use super::deadline::Deadline;
use super::endpoint::Endpoint;
use super::{Error, RedisUrl};

/// The sentinels of one primary, and their last report.
pub(crate) struct Sentinel {
    sentinels: Vec<Connection>,
    /// The name of the primary.
    master: String,
    /// How the servers are reached, whatever their address is.
    servers: RedisUrl,
    last: Mutex<Option<Report>>,
}

/// A sentinel's report: the address of the primary and the epoch of its configuration. The latest epoch counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinel {
    /// How long slower sentinels are waited for once most have answered.
    const GRACE: Duration = Duration::from_millis(50);

    /// Returns the `sentinels` of the primary that they call `master`. Its servers are reached as `servers` is, but for the address.
    pub(crate) fn new(sentinels: Vec<Connection>, master: String, servers: RedisUrl) -> Self {
        Self { sentinels, master, servers, last: Mutex::new(None) }
    }

    /// Asks all sentinels at once and returns the report of the latest epoch, since not all know the same during a failover. Once most
    /// have answered, the rest have [`Self::GRACE`]: a sentinel that was lost with its machine must not delay every failover.
    async fn ask(&self, timeout: Duration) -> Result<Report, Error> {
        let mut reports: FuturesUnordered<_> =
            self.sentinels.iter().map(|sentinel| self.ask_one(sentinel, Deadline::after(timeout))).collect();
        let (mut latest, mut failure, mut answers) = (None::<Report>, None, 0);
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
            Error::Connect(format!("no sentinel tells which server is {:?}: {why}", self.master))
        })
    }

    async fn ask_one(&self, sentinel: &Connection, deadline: Deadline) -> Result<Report, Error> {
        let mut pipeline = pipe();
        // The first names the new primary before the failover is over, the second has the epoch.
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answers = sentinel.send(pipeline.ignore_errors(), deadline).await?;
        parse(answers, &pipeline)?
            .ok_or_else(|| Error::Connect(format!("a sentinel knows no master {:?}", self.master)))
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Report>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint for Sentinel {
    fn resolve(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisUrl, Error>> {
        Box::pin(async move {
            // The other half is for connecting.
            let report = self.ask(timeout / 2).await?;
            let url = self.servers.at(&report.host, report.port);
            *self.last() = Some(report);
            Ok(url)
        })
    }

    fn has_moved(&self, timeout: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let address = |report: &Report| (report.host.clone(), report.port);
            let last = self.last().as_ref().map(address);
            match (last, self.ask(timeout).await) {
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

/// Parses the answers to `pipeline`; `None` if the sentinel doesn't know the name.
fn parse(answers: Vec<RedisResult<Value>>, pipeline: &Pipeline) -> Result<Option<Report>, Error> {
    let mut answers = answers.into_iter();
    let (Some(address), Some(master)) = (answers.next(), answers.next()) else { return Ok(None) };
    let address = address.map_err(|error| Error::from_command(error, pipeline, 0))?;
    let Ok((host, port)) = <(String, u16)>::from_redis_value(address) else { return Ok(None) };
    // Names and values in turn. A report without an epoch is the earliest.
    let fields = master.ok().and_then(|master| Vec::<String>::from_redis_value(master).ok()).unwrap_or_default();
    let epoch = fields.chunks_exact(2).find(|field| field[0] == "config-epoch");
    let epoch = epoch.and_then(|field| field[1].parse().ok()).unwrap_or(0);
    Ok(Some(Report { epoch, host, port }))
}

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.master)
    }
}
