//! The ways to reach the servers: over one connection, or as a cluster.

use std::sync::Arc;

use futures_util::FutureExt as _;
use redis::{RedisResult, Value};

use super::cluster::Cluster;
use super::connection::Connection;
use super::deadline::Deadline;
use super::request::Request;
use super::resolver::FixedAddress;
use super::sentinel::Sentinel;
use super::{Deployment, Error, Limits, Slot};
use crate::telemetry::{Metrics, Traffic};

/// A connection to the only server or to the primary of sentinels, or the connections to the primaries of a cluster.
pub(crate) enum Topology {
    Single(Connection),
    Cluster(Cluster),
}

impl Topology {
    /// Returns the topology of `deployment`. Nothing is sent before the first request.
    pub(crate) fn new(deployment: &Deployment, limits: Limits, metrics: &Arc<Metrics>, traffic: Traffic) -> Self {
        match deployment {
            Deployment::One(url) => {
                let address = Arc::new(FixedAddress::only(url.clone()));
                Self::Single(Connection::new(address, limits, Arc::clone(metrics)))
            }
            Deployment::Sentinel { sentinels, master, servers } => {
                let connect = |url: &_| {
                    let address = Arc::new(FixedAddress::one_of_several(Clone::clone(url)));
                    Connection::new(address, limits, Arc::clone(metrics))
                };
                let sentinels = sentinels.iter().map(connect).collect();
                let sentinel = Arc::new(Sentinel::new(sentinels, master.clone(), servers.clone()));
                Self::Single(Connection::new(sentinel, limits, Arc::clone(metrics)))
            }
            Deployment::Cluster(seeds) => {
                Self::Cluster(Cluster::new(seeds.clone(), limits, Arc::clone(metrics), traffic))
            }
        }
    }

    /// Returns connections of its own for `traffic`.
    pub(crate) fn for_traffic(&self, traffic: Traffic) -> Self {
        match self {
            Self::Single(connection) => Self::Single(connection.sibling()),
            Self::Cluster(cluster) => Self::Cluster(cluster.for_traffic(traffic)),
        }
    }

    /// Whether keys are spread over several servers.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Sends `request` and returns a result for each command.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a server didn't answer by `deadline`.
    pub(crate) async fn send(
        &self,
        request: &mut Request,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        match self {
            Self::Single(connection) if request.is_once() => connection.send_once(request.pipeline(), deadline).await,
            Self::Single(connection) => connection.send(request.pipeline(), deadline).await,
            // Boxed: otherwise the compiler overflows its recursion limit on the nested futures.
            Self::Cluster(cluster) => cluster.send(request, deadline).boxed().await,
        }
    }

    /// Reconnects to the server of `slot` before it is used again.
    pub(crate) fn invalidate(&self, slot: Slot) {
        match self {
            Self::Single(connection) => connection.invalidate(),
            Self::Cluster(cluster) => cluster.invalidate(slot),
        }
    }
}
