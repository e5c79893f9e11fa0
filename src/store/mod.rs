//! Everything about Redis: the keys, the commands, the connection and the private server. No other module names the
//! `redis` crate.
//!
//! # Keys
//!
//! | key | type | member | score | written by | deleted by |
//! |---|---|---|---|---|---|
//! | `segment:<name>` | sorted set | a user's id | Unix time of the last visit in seconds, milliseconds as the fraction | [`Store::write`], [`Store::write_bulk`] | Redis, when [`Store::prune_slice`] removes the last member |
//! | `segments` | sorted set | a segment's name | always 0, so that members are in name order | [`Store::write`] | [`Store::drop_if_empty`], name by name |
//!
//! `segments` is the index: every segment that may have members. A name stands in its key as it is, whatever it holds
//! (braces, colons, spaces): the prefix has no variable part before it, so two names never share a key, and no name can
//! be taken for the index.
//!
//! # Why the index never loses a segment
//!
//! [`Store::write`] writes members first and names second. [`Store::drop_if_empty`] looks at the segment and
//! removes the name in one atomic script. If the script runs before the member is written, the name is written after
//! it; if it runs after, the segment isn't empty and the name stays. Should Redis die between the two commands, the visit is
//! not acknowledged, and the name comes with its repetition or with the segment's next visit. Until then the member counts
//! as it should, and only pruning doesn't know of it.
//!
//! # Commands
//!
//! `PING`, `INFO`, `TIME`, `ZADD`, `ZCARD`, `ZCOUNT`, `ZRANGE`, `ZREMRANGEBYSCORE`, and in scripts `EVAL`, `EXISTS`, `ZREM`: what an
//! ACL must allow; the service works without `INFO`, and without `TIME`, by its own clock then. With [`WriteAcks`] also `WAIT`, or
//! `WAITAOF`, which needs Redis 7.2 or Valkey. `segment-estimator check` also asks `ACL WHOAMI`, `ACL DRYRUN` and `CONFIG GET`. `ZADD GT` and
//! `ZRANGE BYLEX` need Redis 6.2 or Valkey.

mod access;
mod acks;
mod batch;
mod connection;
pub mod embedded;
mod error;
mod greeting;
mod outage;
mod permissions;
mod prune;
mod server;
mod tls;
mod url;

use redis::{FromRedisValue as _, Pipeline, Value, pipe};

pub use self::access::{Access, ClientFiles};
pub use self::acks::WriteAcks;
pub use self::batch::{Batch, Slot};
pub use self::connection::{Connection, Limits};
pub use self::error::Error;
pub use self::permissions::Permissions;
pub use self::prune::Slice;
pub use self::server::Server;
use self::server::primary_of;
pub use self::url::RedisUrl;
use crate::segment::SegmentName;
use crate::telemetry::{Metrics, Traffic};
use crate::time::Timestamp;

/// The sorted set of a segment's members.
fn segment_key(segment: &str) -> String {
    ["segment:", segment].concat()
}

/// The sorted set of segment names.
const INDEX_KEY: &str = "segments";

/// The sorted sets in Redis. Cheap to clone; clones share the connections.
///
/// Redis answers a connection's commands in order and serves connections in turn, so that what goes over one doesn't wait for
/// what goes over another.
#[derive(Debug, Clone)]
pub struct Store {
    /// For all but visits. Pruning goes over it, too: it has one slice under way at a time, which holds up every connection
    /// for as long as this one.
    connection: Connection,
    /// For single visits.
    visits: Connection,
    /// For batches, whose thousands of visits a single one has not to wait for.
    batches: Connection,
    acks: WriteAcks,
}

/// One page of the index.
#[derive(Debug)]
pub struct IndexPage {
    /// The segments on the page, in the order of their names' bytes.
    pub segments: Vec<SegmentName<'static>>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<IndexCursor>,
}

/// A place in the index: after this member.
#[derive(Debug, Clone)]
pub struct IndexCursor(Vec<u8>);

impl Store {
    /// The store behind `connection`.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        let [visits, batches] = [Traffic::Visits, Traffic::Batches].map(|traffic| connection.for_traffic(traffic));
        Self { connection, visits, batches, acks: WriteAcks::default() }
    }

    /// The same store, whose visits are acknowledged when so many replicas have them.
    #[must_use]
    pub fn with_acks(self, acks: WriteAcks) -> Self {
        Self { acks, ..self }
    }

    /// How many replicas must have a visit.
    #[must_use]
    pub fn acks(&self) -> WriteAcks {
        self.acks
    }

    /// What Redis may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.connection.limits()
    }

    /// What the service is measured with.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.connection.metrics()
    }

    /// Has a failure logged that a caller met before Redis was asked.
    pub(crate) fn note_failure(&self, error: &Error) {
        self.connection.note_failure(error);
    }

    /// Asks Redis whether it can serve, and for its time, to the millisecond; `None` when an ACL forbids to ask for that.
    ///
    /// # Errors
    ///
    /// An [`Error`] if not; `LOADING` counts as not, and so does that it has become a replica.
    pub async fn ping(&self) -> Result<Option<Timestamp>, Error> {
        let mut question = pipe();
        question.cmd("PING").cmd("INFO").arg("replication").cmd("TIME");
        let mut time = None;
        let only_the_ping = |answers: &mut Vec<Result<Value, Error>>| {
            // What an ACL forbids to ask is no failure.
            time = answers.pop().and_then(Result::ok).and_then(|time| <(i64, i64)>::from_redis_value(time).ok());
            let info = answers.pop().and_then(Result::ok).and_then(|info| String::from_redis_value(info).ok());
            if let (Some(pong @ Ok(_)), Some(primary)) = (answers.last_mut(), info.as_deref().and_then(primary_of)) {
                *pong = Err(Error::Replica(primary));
            }
        };
        self.connection.query_settled(&mut question, only_the_ping).await?.pop().transpose()?;
        // Unix time in whole seconds, and the microseconds beyond them.
        let millis = |(seconds, micros): (i64, i64)| seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        Ok(time.map(|time| Timestamp::from_millis(millis(time))))
    }

    /// How many members each segment has that were seen after its cutoff, asked in one round trip.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer, for one of them or for all; never a guess.
    pub async fn counts(&self, questions: &[&(SegmentName<'_>, Timestamp)]) -> Result<Vec<Result<u64, Error>>, Error> {
        let mut pipeline = Pipeline::with_capacity(questions.len());
        for (segment, cutoff) in questions {
            pipeline.cmd("ZCOUNT").arg(segment_key(segment.as_str())).arg(after(*cutoff)).arg("+inf");
        }
        self.connection.query_each(&mut pipeline).await
    }

    /// How many names the index has.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn index_size(&self) -> Result<u64, Error> {
        let (names,) = self.connection.query(pipe().cmd("ZCARD").arg(INDEX_KEY)).await?;
        Ok(names)
    }

    /// Up to `limit` names of the index that stand after `cursor`, or from its start.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn index(&self, cursor: Option<&IndexCursor>, limit: usize) -> Result<IndexPage, Error> {
        let from = match cursor {
            Some(IndexCursor(member)) => [b"(", member.as_slice()].concat(),
            None => b"-".to_vec(),
        };
        let mut pipeline = pipe();
        pipeline.cmd("ZRANGE").arg(INDEX_KEY).arg(from).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let (members,): (Vec<Vec<u8>>,) = self.connection.query(&pipeline).await?;
        let next = if members.len() == limit { members.last().cloned().map(IndexCursor) } else { None };
        // Only `write` writes the index, so every member is a name; what else somebody put there is not ours to read.
        let segments =
            members.into_iter().filter_map(|member| SegmentName::parse(String::from_utf8(member).ok()?).ok());
        Ok(IndexPage { segments: segments.collect(), next })
    }
}

/// A lower bound for scores that leaves `cutoff` itself out.
fn after(cutoff: Timestamp) -> String {
    format!("({}", cutoff.as_score())
}
