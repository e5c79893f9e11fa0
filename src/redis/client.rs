//! What the store sends its commands over: one server, the primary that sentinels name, or the masters of a cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::cluster::Cluster;
use super::connection::{Node, Server, Used};
use super::outage_log::OutageLog;
use super::request::Commands;
use super::sentinel::Sentinel;
use super::{Error, Servers, Slot};
use crate::telemetry::{Metrics, TRACED, Traffic};

/// How long to wait for Redis, and how many may.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection to be made.
    pub connect: Duration,
    /// For an answer, a needed connect and redirections included.
    pub answer: Duration,
    /// Visits, and as many counts, that may wait for the next round trip.
    pub waiting: usize,
}

/// A handle on what serves; clones share it.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    servers: Servers,
    way: Way,
    limits: Limits,
    outages: Arc<OutageLog>,
    metrics: Arc<Metrics>,
    /// What it is for.
    traffic: Traffic,
    /// Every exchange that is under way holds one more of it.
    under_way: Arc<()>,
}

/// How the servers are reached.
enum Way {
    One(Node),
    Cluster(Cluster),
}

impl Connection {
    /// A handle on `servers`. Nothing is sent before the first query.
    ///
    /// # Errors
    ///
    /// A line that names the setting when a file that stands beside a URL can't be used.
    pub fn new(servers: impl Into<Servers>, limits: Limits, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (servers, traffic) = (servers.into(), Traffic::Other);
        let node = |server| Node::new(server, limits, Arc::clone(&metrics));
        // Every connect reads the files again; this is so that a mistake is told at the start.
        servers.urls().try_for_each(|url| url.client().map(drop))?;
        let way = match &servers {
            Servers::One(url) => Way::One(node(Server::At(url.clone().into()))),
            Servers::Sentinel { sentinels, master, servers } => {
                let sentinels = sentinels.iter().map(|url| node(Server::Member(url.clone().into()))).collect();
                let sentinel = Sentinel::new(sentinels, master.clone(), servers.clone());
                Way::One(node(Server::Primary(Arc::new(sentinel))))
            }
            Servers::Cluster(seeds) => Way::Cluster(Cluster::new(seeds.clone(), limits, Arc::clone(&metrics), traffic)),
        };
        Ok(Self(Arc::new(Shared {
            servers,
            way,
            limits,
            outages: Arc::default(),
            metrics,
            traffic,
            under_way: Arc::default(),
        })))
    }

    /// Another connection to the same servers, under the same limits, for `traffic`. They share what is known of them.
    pub(crate) fn for_traffic(&self, traffic: Traffic) -> Self {
        let Shared { servers, way, limits, outages, metrics, .. } = &*self.0;
        Self(Arc::new(Shared {
            servers: servers.clone(),
            way: match way {
                Way::One(node) => Way::One(node.another()),
                Way::Cluster(cluster) => Way::Cluster(cluster.for_traffic(traffic)),
            },
            limits: *limits,
            outages: Arc::clone(outages),
            metrics: Arc::clone(metrics),
            traffic,
            under_way: Arc::default(),
        }))
    }

    /// The limits it was made with.
    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// What it is measured with.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Whether something was sent that is not answered yet.
    pub(crate) fn is_busy(&self) -> bool {
        Arc::strong_count(&self.0.under_way) > 1
    }

    /// Whether keys are shared out among several servers.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0.way, Way::Cluster(_))
    }

    /// A slot of each server that takes writes, and where that is. Of one that is alone, any slot.
    ///
    /// # Errors
    ///
    /// An [`Error`] when no server of a cluster tells.
    pub(crate) async fn masters(&self) -> Result<Vec<(Slot, String)>, Error> {
        match &self.0.way {
            Way::One(node) => Ok(vec![(Slot(0), node.address().unwrap_or_else(|| self.0.servers.to_string()))]),
            Way::Cluster(cluster) => {
                let masters = self.in_time(cluster.masters().boxed()).await;
                masters.inspect_err(|error| self.count_failure(error))
            }
        }
    }

    /// The master of each of `slots`: a number, by its place in [`Self::masters`].
    ///
    /// # Errors
    ///
    /// As [`Self::masters`].
    pub(crate) async fn masters_of(&self, slots: Vec<Slot>) -> Result<Vec<usize>, Error> {
        match &self.0.way {
            Way::One(_) => Ok(vec![0; slots.len()]),
            Way::Cluster(cluster) => {
                let masters = self.in_time(cluster.masters_of(slots).boxed()).await;
                masters.inspect_err(|error| self.count_failure(error))
            }
        }
    }

    /// `parts` in groups that are at one server each, by the slots that `slot_of` gives them.
    ///
    /// # Errors
    ///
    /// As [`Self::masters`].
    pub(crate) async fn by_server<T>(&self, parts: Vec<T>, slot_of: impl Fn(&T) -> Slot) -> Result<Vec<Vec<T>>, Error> {
        let masters = self.masters_of(parts.iter().map(slot_of).collect()).await?;
        let mut servers: BTreeMap<usize, Vec<T>> = BTreeMap::new();
        for (master, part) in masters.into_iter().zip(parts) {
            servers.entry(master).or_default().push(part);
        }
        Ok(servers.into_values().collect())
    }

    /// Has connections made anew if sentinels say that they lead to what is the primary no more.
    pub(crate) async fn confirm_primary(&self) {
        if let Way::One(node) = &self.0.way {
            node.confirm().await;
        }
    }

    /// Has `error` logged.
    pub(crate) fn note_failure(&self, error: &Error) {
        self.0.outages.failed(error, self.0.traffic, Instant::now());
    }

    /// Sends `pipeline` in one round trip to where `slot` is, and gives its answers, one for each command.
    ///
    /// When the connection turns out to be broken the pipeline is sent once more on a new one, so that a Redis that was
    /// restarted between two requests costs nobody an error; and in a cluster it is sent again where a server sends us. Every
    /// pipeline must therefore be safe to run twice.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time or answered any of the commands with an error.
    pub(crate) async fn query<T: FromRedisValue>(&self, slot: Slot, pipeline: Pipeline) -> Result<T, Error> {
        let mut commands = Commands::new(slot, pipeline);
        let (answers, used) = self.exchange(&mut commands).await;
        let answer = answers.and_then(|answers| one_answer(answers, commands.as_sent()));
        self.take_note(answer.as_ref().err(), &used);
        answer
    }

    /// Sends `commands` as [`Self::query`] does, and gives a result for each: one that Redis refuses doesn't take the others with
    /// it. Before failures are counted and logged, `settle` says which of the results are.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time.
    pub(crate) async fn query_settled(
        &self,
        mut commands: Commands,
        settle: impl FnOnce(&mut Vec<Result<Value, Error>>),
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        let (answers, used) = self.exchange(&mut commands).await;
        let mut results = answers.map(|answers| each_answer(answers, commands.as_sent()));
        if let Ok(results) = &mut results {
            settle(results);
        }
        match &results {
            Ok(results) => self.take_note(results.iter().filter_map(|result| result.as_ref().err()), &used),
            Err(error) => self.take_note([error], &used),
        }
        results
    }

    /// As [`Self::query_settled`], for what Redis may well refuse: a refusal is for the caller alone and is not logged. It doesn't
    /// say that Redis is well either, since a refused `PING` may be among them.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer in time.
    pub(crate) async fn ask_each<T: FromRedisValue>(
        &self,
        slot: Slot,
        pipeline: Pipeline,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let mut commands = Commands::new(slot, pipeline);
        let (answers, used) = self.exchange(&mut commands).await;
        let results = answers.map(|answers| each_answer(answers, commands.as_sent()));
        if !results.as_ref().is_ok_and(|results| results.iter().any(Result::is_err)) {
            self.take_note(results.as_ref().err(), &used);
        }
        results.map(|results| results.into_iter().map(|result| result.and_then(read)).collect())
    }

    /// Sends `commands`, and says on which connection that was last.
    async fn exchange(&self, commands: &mut Commands) -> (Result<Vec<RedisResult<Value>>, Error>, Used) {
        // Who gives up drops it as well.
        let _under_way = Arc::clone(&self.0.under_way);
        let mut used = Used::default();
        let since = Instant::now();
        let span = redis_span(commands.as_sent());
        let exchange = async {
            match &self.0.way {
                Way::One(node) => node.exchange(commands.pipeline(), &mut used).await,
                // In a box: the compiler gives up on futures that contain as many others as this one.
                Way::Cluster(cluster) => cluster.exchange(commands, &mut used).boxed().await,
            }
        };
        let answer = self.in_time(exchange.instrument(span.clone())).await;
        let answer = match &self.0.way {
            Way::One(_) => answer,
            Way::Cluster(_) => answer.map_err(|error| used.name(error)),
        };
        if let Err(error) = &answer {
            span.record("error.type", error.kind());
            span.record("otel.status_code", "ERROR");
        }
        // A master that doesn't answer, or knows of no cluster any more, may have been replaced.
        if let Way::Cluster(cluster) = &self.0.way
            && answer.as_ref().map_or(true, |answers| answers.iter().any(is_of_a_lost_master))
        {
            cluster.look_again();
        }
        self.0.metrics.redis.answered(self.0.traffic, since);
        (answer, used)
    }

    async fn in_time<T>(&self, asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = self.0.limits.answer;
        tokio::time::timeout(limit, asking).await.unwrap_or(Err(Error::Timeout(limit)))
    }

    /// Has the failures of an exchange counted and logged, or that there was none, and forgets a connection that is not worth
    /// keeping.
    fn take_note<'a>(&self, failures: impl IntoIterator<Item = &'a Error>, used: &Used) {
        let mut has_failed = false;
        for error in failures {
            self.count_failure(error);
            has_failed |= error.is_outage();
            used.take_note(error);
        }
        if !has_failed && self.0.outages.is_failing() {
            match self.0.way {
                Way::One(_) => self.0.outages.answered(self.0.traffic, Instant::now()),
                // One of several servers says nothing of the others.
                Way::Cluster(_) => self.0.outages.taken(self.0.traffic),
            }
        }
    }

    /// Has it logged that all servers answer, if they didn't.
    pub(crate) fn note_recovery(&self) {
        if self.0.outages.is_failing() {
            self.0.outages.answered(self.0.traffic, Instant::now());
        }
    }

    /// Has `error` counted and logged.
    pub(crate) fn count_failure(&self, error: &Error) {
        self.0.metrics.redis.failed(error.kind());
        self.note_failure(error);
    }
}

/// Whether it is the answer of a server that has lost the others, or its place.
fn is_of_a_lost_master(answer: &RedisResult<Value>) -> bool {
    let code = answer.as_ref().err().and_then(RedisError::code);
    code.is_some_and(|code| ["CLUSTERDOWN", "MASTERDOWN", "READONLY"].contains(&code))
}

/// The answers to all commands of `pipeline` as one, or why one of them failed.
fn one_answer<T: FromRedisValue>(answers: Vec<RedisResult<Value>>, pipeline: &Pipeline) -> Result<T, Error> {
    let mut values = Vec::with_capacity(answers.len());
    let mut failure = None;
    for result in each_answer(answers, pipeline) {
        match result {
            Ok(value) => values.push(value),
            // A wrong type is one key's fault; anything else is about Redis and matters more.
            Err(error) if failure.as_ref().is_none_or(|before: &Error| !before.is_outage() && error.is_outage()) => {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    failure.map_or_else(|| read(Value::Array(values)), Err)
}

fn each_answer(answers: Vec<RedisResult<Value>>, pipeline: &Pipeline) -> Vec<Result<Value, Error>> {
    let results = answers.into_iter().enumerate();
    results.map(|(index, result)| result.map_err(|error| Error::from_command(error, pipeline, index))).collect()
}

/// Takes an answer as what was asked for.
pub(crate) fn read<T: FromRedisValue>(value: Value) -> Result<T, Error> {
    T::from_redis_value(value).map_err(|error| Error::Lost(error.to_string()))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.servers)
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
