//! Discovery of the primaries: reads `CLUSTER SLOTS`, and caches the answer until a redirection or a failure shows that
//! it is outdated.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::seq::SliceRandom as _;
use redis::{AsyncConnectionConfig, FromRedisValue as _, RedisResult, Value, pipe};
use tokio::sync::Mutex;

use super::primaries::{Primaries, PrimaryConnections};
use super::slots::{Address, SlotMap};
use crate::redis::connection::Connection;
use crate::redis::deadline::Deadline;
use crate::redis::handshake::{Role, connect};
use crate::redis::info::info_field;
use crate::redis::resolver::FixedAddress;
use crate::redis::{Error, Limits, RedisUrl};
use crate::telemetry::Metrics;

/// The discovered servers of a cluster. All traffics share them.
pub(super) struct Discovery {
    seeds: Vec<RedisUrl>,
    limits: Limits,
    primaries: ArcSwapOption<Primaries>,
    /// Connections to servers without slots that a redirection named, such as those of a machine that is being added.
    unassigned: std::sync::Mutex<HashMap<Address, PrimaryConnections>>,
    /// Locked during a refresh. Tasks that wait for the lock share its outcome.
    last_refresh: Arc<Mutex<Option<RefreshOutcome>>>,
    metrics: Arc<Metrics>,
}

/// The time of a refresh, and its error if it failed.
struct RefreshOutcome {
    at: Instant,
    failure: Option<Error>,
}

impl Discovery {
    /// Minimum time between two refreshes.
    const REFRESH_PAUSE: Duration = Duration::from_millis(100);
    /// Number of servers that are queried concurrently. The first answer counts.
    const CONCURRENCY: usize = 3;

    /// Discovers the cluster of the servers at `seeds`.
    pub(super) fn new(seeds: Vec<RedisUrl>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let (primaries, unassigned, last_refresh) = Default::default();
        Self { seeds, limits, primaries, unassigned, last_refresh, metrics }
    }

    /// Returns the primaries, after a refresh if they have not been discovered yet.
    ///
    /// # Errors
    ///
    /// An [`Error`] if no server answers.
    pub(super) async fn primaries(self: &Arc<Self>) -> Result<Arc<Primaries>, Error> {
        match self.primaries.load_full() {
            Some(primaries) => Ok(primaries),
            None => self.refresh(None).await,
        }
    }

    /// Returns the primaries if they have been discovered.
    pub(super) fn known_primaries(&self) -> Option<Arc<Primaries>> {
        self.primaries.load_full()
    }

    /// Starts a refresh in the background, unless one is running.
    pub(super) fn spawn_refresh(self: &Arc<Self>) {
        if self.last_refresh.try_lock().is_err() {
            return;
        }
        let discovery = Arc::clone(self);
        tokio::spawn(async move {
            let outdated = discovery.known_primaries();
            // If no server answers, the next request that needs a primary fails with the cause.
            let _ = discovery.refresh(outdated.as_ref()).await;
        });
    }

    /// Fetches the primaries again, unless they were replaced since `outdated` was read, or the last refresh is too
    /// recent.
    ///
    /// # Errors
    ///
    /// As [`Self::primaries`].
    pub(super) async fn refresh(self: &Arc<Self>, outdated: Option<&Arc<Primaries>>) -> Result<Arc<Primaries>, Error> {
        let discovery = Arc::clone(self);
        let mut last_refresh = Arc::clone(&self.last_refresh).lock_owned().await;
        let current = self.known_primaries();
        if let Some(current) = &current
            && outdated.is_none_or(|outdated| !Arc::ptr_eq(current, outdated))
        {
            return Ok(Arc::clone(current));
        }
        if let Some(RefreshOutcome { at, failure }) = &*last_refresh
            && at.elapsed() < Self::REFRESH_PAUSE
        {
            return match (failure, current) {
                (None, Some(current)) => Ok(current),
                (failure, _) => Err(failure.clone().unwrap_or_else(no_server_known)),
            };
        }
        // In a task of its own: a caller that is cancelled must not cancel the refresh that the next one waits for.
        let refreshing = tokio::spawn(async move {
            let slots = discovery.fetch_slots(current.as_deref()).await;
            *last_refresh = Some(RefreshOutcome { at: Instant::now(), failure: slots.as_ref().err().cloned() });
            let primaries = Arc::new(discovery.connect_primaries(slots?, current.as_deref()));
            discovery.primaries.store(Some(Arc::clone(&primaries)));
            Ok(primaries)
        });
        refreshing.await.unwrap_or_else(|stopped| Err(Error::Connect(stopped.to_string())))
    }

    /// Queries the servers in random order, a few at a time, until one returns the primaries of the slots.
    async fn fetch_slots(&self, known: Option<&Primaries>) -> Result<SlotMap, Error> {
        let servers = known.into_iter().flat_map(|known| known.slots.servers());
        let mut servers: Vec<_> = servers.map(|address| self.url_of(address)).collect();
        servers.shuffle(&mut rand::rng());
        let (mut failure, mut of_a_lost_server) = (None, None);
        for urls in servers.iter().chain(&self.seeds).collect::<Vec<_>>().chunks(Self::CONCURRENCY) {
            let mut answers: FuturesUnordered<_> = urls.iter().map(|url| self.fetch_slots_from(url)).collect();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok((slots, true)) => return Ok(slots),
                    // The server may be isolated from the others, which may have elected other primaries.
                    Ok((slots, false)) => of_a_lost_server = Some(slots),
                    Err(error) => failure = Some(error),
                }
            }
        }
        of_a_lost_server.ok_or_else(|| failure.unwrap_or_else(no_server_known))
    }

    /// Fetches the primaries of the slots from the server at `url`, a primary or a replica. Also returns whether the
    /// server considers the cluster healthy.
    async fn fetch_slots_from(&self, url: &RedisUrl) -> Result<(SlotMap, bool), Error> {
        let timeout = self.limits.connect;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(timeout));
        let mut connection = connect(url, &config, Role::Any, Deadline::after(timeout)).await?;
        let mut pipeline = pipe();
        pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS").ignore_errors();
        let answers = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        let mut answers = answers.map_err(|error| Error::from_answer(error, &pipeline))?.into_iter();
        let info = answers.next().and_then(Result::ok).and_then(|info| String::from_redis_value(info).ok());
        let is_well = info.is_none_or(|info| info_field(&info, "cluster_state") != Some("fail"));
        let slots = answers.next().transpose().map_err(|error| Error::from_command(error, &pipeline, 1))?;
        let unknown = || {
            Error::Connect(format!(
                "{url} reports no server with slots; create the cluster with `redis-cli --cluster create`"
            ))
        };
        let slots = slots.and_then(|slots| SlotMap::parse(slots, &url.host())).ok_or_else(unknown)?;
        Ok((slots, is_well))
    }

    /// Returns the primaries of `slots`. Reuses the connections to `known` ones.
    fn connect_primaries(&self, slots: SlotMap, known: Option<&Primaries>) -> Primaries {
        let mut unassigned = self.lock_unassigned();
        let mut reuse = |address| {
            let known = known.and_then(|known| known.connections_to(address)).cloned();
            known.or_else(|| unassigned.remove(address))
        };
        let connections =
            slots.primaries().map(|(_, address)| reuse(address).unwrap_or_else(|| self.connections_to_new(address)));
        Primaries { connections: connections.collect(), slots }
    }

    /// Returns the connections to the server at `address`, which may be no primary.
    pub(super) fn connections_to(&self, address: &Address) -> PrimaryConnections {
        let known = self.known_primaries().and_then(|primaries| primaries.connections_to(address).cloned());
        known.unwrap_or_else(|| {
            let mut unassigned = self.lock_unassigned();
            unassigned.entry(address.clone()).or_insert_with(|| self.connections_to_new(address)).clone()
        })
    }

    fn lock_unassigned(&self) -> std::sync::MutexGuard<'_, HashMap<Address, PrimaryConnections>> {
        self.unassigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections_to_new(&self, address: &Address) -> PrimaryConnections {
        let address = FixedAddress::one_of_several(self.url_of(address));
        PrimaryConnections::new(Connection::new(Arc::new(address), self.limits, Arc::clone(&self.metrics)))
    }

    fn url_of(&self, address: &Address) -> RedisUrl {
        self.seeds[0].at(&address.host, address.port)
    }
}

fn no_server_known() -> Error {
    Error::Connect("no server of the cluster is known".to_owned())
}
