//! The client: sends requests within a timeout, and counts, logs and traces them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use redis::{FromRedisValue as _, Pipeline, Value, pipe};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::deadline::Deadline;
use super::info::primary_of;
use super::outage_log::{Failure, OutageLog};
use super::reply::Reply;
use super::request::Request;
use super::topology::Topology;
use super::{Deployment, Error, Limits, Slot};
use crate::telemetry::{Metrics, TRACED, Traffic};

/// A handle on the servers; clones share the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    deployment: Deployment,
    topology: Topology,
    limits: Limits,
    outages: Arc<OutageLog>,
    metrics: Arc<Metrics>,
    traffic: Traffic,
    span_server: SpanServer,
    /// Each request in flight holds a reference.
    in_flight: Arc<()>,
}

/// The server, as spans name it.
#[derive(Clone)]
struct SpanServer {
    /// The index of the database.
    namespace: String,
    /// The address and the port, if there is one server. It has no port if it is a Unix socket.
    address: Option<(String, Option<u16>)>,
}

impl SpanServer {
    fn of(deployment: &Deployment) -> Self {
        let address = match deployment {
            Deployment::One(url) => Some(url.address_and_port()),
            Deployment::Sentinel { .. } | Deployment::Cluster(_) => None,
        };
        Self { namespace: deployment.server().database_index().to_string(), address }
    }
}

impl Client {
    /// Returns a client of `deployment`. It connects at the first request.
    ///
    /// # Errors
    ///
    /// A line that names the setting if a file with a password or a certificate can't be used.
    pub fn new(deployment: impl Into<Deployment>, limits: Limits, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (deployment, traffic) = (deployment.into(), Traffic::Other);
        // Every connect reads the files again. This reports a mistake at the start.
        deployment.urls().try_for_each(|url| url.client().map(drop))?;
        let topology = Topology::new(&deployment, limits, &metrics, traffic);
        let (span_server, (outages, in_flight)) = (SpanServer::of(&deployment), Default::default());
        let inner = Inner { deployment, topology, limits, outages, metrics, traffic, span_server, in_flight };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a client with connections of its own for `traffic`. Both share the discovered servers.
    pub(crate) fn for_traffic(&self, traffic: Traffic) -> Self {
        let Inner { deployment, topology, limits, outages, metrics, span_server, .. } = &*self.inner;
        let inner = Inner {
            deployment: deployment.clone(),
            topology: topology.for_traffic(traffic),
            limits: *limits,
            outages: Arc::clone(outages),
            metrics: Arc::clone(metrics),
            traffic,
            span_server: span_server.clone(),
            in_flight: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the limits that it was created with.
    pub(crate) fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Returns the metrics that it was created with.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Whether a request is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        Arc::strong_count(&self.inner.in_flight) > 1
    }

    /// Whether keys are spread over several servers.
    pub(crate) fn is_cluster(&self) -> bool {
        self.inner.topology.is_cluster()
    }

    /// Returns a slot and the address of each server that takes writes. A single server has every slot.
    ///
    /// # Errors
    ///
    /// An [`Error`] if no server of a cluster answers.
    pub(crate) async fn primaries(&self) -> Result<Vec<(Slot, String)>, Error> {
        match &self.inner.topology {
            Topology::Single(connection) => {
                Ok(vec![(Slot(0), connection.address().unwrap_or_else(|| self.inner.deployment.to_string()))])
            }
            Topology::Cluster(cluster) => {
                let primaries = self.deadline().bound(cluster.primaries().boxed()).await;
                primaries.inspect_err(|error| self.report_error(error))
            }
        }
    }

    /// Returns the index in [`Self::primaries`] of the server of each of `slots`.
    ///
    /// # Errors
    ///
    /// As [`Self::primaries`].
    pub(crate) async fn primaries_of(&self, slots: Vec<Slot>) -> Result<Vec<usize>, Error> {
        match &self.inner.topology {
            Topology::Single(_) => Ok(vec![0; slots.len()]),
            Topology::Cluster(cluster) => {
                let primaries = self.deadline().bound(cluster.primaries_of(slots).boxed()).await;
                primaries.inspect_err(|error| self.report_error(error))
            }
        }
    }

    /// Reconnects if the sentinels report a different primary.
    pub(crate) async fn confirm_primary(&self) {
        if let Topology::Single(connection) = &self.inner.topology {
            connection.confirm_primary().await;
        }
    }

    /// Sends `request` in one round trip and returns a result for each command. One that Redis refuses doesn't fail the
    /// others.
    ///
    /// If the connection turns out to be broken, the request is sent once more on a new one, so that a restart of Redis
    /// between two requests fails neither. A request of [`Request::once`] fails instead. In a cluster, redirected commands
    /// are sent again to their target. Therefore each command must be idempotent.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer in time.
    pub(crate) async fn send(&self, mut request: Request) -> Result<Reply, Error> {
        // A cancelled request drops it as well.
        let _in_flight = Arc::clone(&self.inner.in_flight);
        let since = Instant::now();
        let span = redis_span(request.as_sent(), &self.inner.span_server);
        let sending = self.inner.topology.send(&mut request, self.deadline());
        let answers = sending.instrument(span.clone()).await;
        self.inner.metrics.redis.observe_exchange(self.inner.traffic, since);
        match answers {
            Ok(answers) => {
                let is_probe = request.is_probe();
                let reply = Reply::new(request, answers);
                if let Some(error) = reply.worst_error().filter(|_| !is_probe) {
                    record_error(&span, error);
                }
                if is_probe {
                    self.report_success_unless(reply.errors().next().is_some());
                } else {
                    self.report_outcome(reply.errors());
                }
                Ok(reply)
            }
            Err(error) => {
                record_error(&span, &error);
                self.report_outcome([&error]);
                Err(error)
            }
        }
    }

    /// Checks that the server of `slot` can serve. Returns its time in seconds and microseconds since the Unix epoch;
    /// `None` if an ACL forbids `TIME`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the server can't serve. It can't while it loads its data, nor as a replica.
    pub(crate) async fn ping(&self, slot: Slot) -> Result<Option<(i64, i64)>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("PING").cmd("INFO").arg("replication").cmd("TIME");
        let is_optional = |error: &Error| error.is_refusal_of("INFO") || error.is_refusal_of("TIME");
        let mut results = self.send(Request::new(slot, pipeline).nil_for(is_optional)).await?.results().into_iter();
        let mut next = || results.next().unwrap_or(Ok(Value::Nil));
        let (pong, info, time) = (next(), next(), next());
        pong?;
        let info = info.ok().and_then(|info| String::from_redis_value(info).ok());
        if let Some(primary) = info.as_deref().and_then(primary_of) {
            let error = Error::Replica(primary);
            self.report_error(&error);
            self.inner.topology.invalidate(slot);
            return Err(error);
        }
        Ok(time.ok().and_then(|time| <(i64, i64)>::from_redis_value(time).ok()))
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.inner.limits.answer)
    }

    /// Counts and logs the `errors` of a request, or its success.
    fn report_outcome<'a>(&self, errors: impl IntoIterator<Item = &'a Error>) {
        let mut has_failed = false;
        for error in errors {
            self.report_error(error);
            has_failed |= error.is_outage();
        }
        self.report_success_unless(has_failed);
    }

    fn report_success_unless(&self, has_failed: bool) {
        if !has_failed && self.inner.outages.is_failing() {
            match self.inner.topology {
                Topology::Single(_) => self.inner.outages.succeeded(self.inner.traffic, Instant::now()),
                // The answer of one server doesn't prove that the others answer.
                Topology::Cluster(_) => self.inner.outages.succeeded_on_one_server(self.inner.traffic),
            }
        }
    }

    /// Logs that all servers answer again after an outage.
    pub(crate) fn report_recovery(&self) {
        if self.inner.outages.is_failing() {
            self.inner.outages.succeeded(self.inner.traffic, Instant::now());
        }
    }

    /// Counts and logs `error`.
    pub(crate) fn report_error(&self, error: &Error) {
        self.report(error.as_failure());
    }

    /// Counts and logs `failure`.
    pub(crate) fn report(&self, failure: Failure<'_>) {
        self.inner.metrics.redis.failed(failure.kind);
        self.log(failure);
    }

    /// Logs `failure`.
    pub(crate) fn log(&self, failure: Failure<'_>) {
        self.inner.outages.failed(failure, self.inner.traffic, Instant::now());
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.deployment)
    }
}

/// Returns the span of a pipeline, named by the [conventions](https://opentelemetry.io/docs/specs/semconv/db/redis/). It
/// omits keys, because they contain names of segments.
fn redis_span(pipeline: &Pipeline, server: &SpanServer) -> Span {
    tracing::info_span!(
        target: TRACED,
        "PIPELINE",
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "redis",
        db.operation.name = "PIPELINE",
        // One command is no batch.
        db.operation.batch.size = Some(pipeline.cmd_iter().count()).filter(|commands| *commands > 1),
        db.namespace = server.namespace.as_str(),
        db.response.status_code = Empty,
        server.address = server.address.as_ref().map(|(address, _)| address.as_str()),
        server.port = server.address.as_ref().and_then(|(_, port)| *port),
        error.type = Empty,
    )
}

/// Marks the span of a request as failed.
fn record_error(span: &Span, error: &Error) {
    if let Some(code) = error.code() {
        span.record("db.response.status_code", code);
    }
    span.record("error.type", error.kind());
    span.record("otel.status_code", "ERROR");
}
