//! Redis Cluster: which master has which slot, and what to do when it has not.
//!
//! redis's own `cluster_async` was the first choice. It sends a pipeline that was redirected by `ASK` as a whole, behind one
//! `ASKING`, which holds for one command, and not in the same write (`get_redirected_connection` in
//! `src/cluster_handling/async_connection/mod.rs` of redis 1.8): while a slot moves, what is pipelined goes back and forth until
//! it is given up. And `ASK` means the one command alone: others of the same pipeline may have their keys where they were, and
//! would make them anew at the other server, whose copy the rest of the slot then collides with.
//!
//! So commands are sent as one pipeline, and those that are redirected one by one, in the steps that [`Commands`] tells. All of
//! them may be sent twice.

mod masters;
mod redirections;
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::select_ok;
use rand::seq::SliceRandom as _;
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, pipe};
use tokio::sync::Mutex;

use self::masters::{Connections, Masters};
use self::redirections::is_redirected;
use self::slots::{Address, Slots};
use super::commands::Commands;
use super::error::Error;
use super::greeting::{Role, connect};
use super::keys::Slot;
use super::node::{Node, Server, Used};
use super::url::RedisUrl;
use crate::telemetry::{Metrics, Traffic};

/// The masters of a cluster, reached for one traffic.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    traffic: Traffic,
}

/// What all traffics share.
struct Shared {
    seeds: Vec<RedisUrl>,
    /// How long connecting may take.
    limit: Duration,
    masters: ArcSwapOption<Masters>,
    /// Held while somebody looks who the masters are; those who wait for it share what came of it.
    last_look: Mutex<Option<Look>>,
    metrics: Arc<Metrics>,
}

/// When somebody looked who the masters are, and why that isn't known if it failed.
struct Look {
    at: Instant,
    failure: Option<Error>,
}

impl Cluster {
    /// Who the masters are is asked again no sooner than after this.
    const LOOK_PAUSE: Duration = Duration::from_millis(100);
    /// How many servers are asked at once. The first answer counts.
    const LOOK_AT_ONCE: usize = 3;

    /// The cluster that the servers at `seeds` belong to, to each of which connecting may take `limit`.
    pub(super) fn new(seeds: Vec<RedisUrl>, limit: Duration, metrics: Arc<Metrics>, traffic: Traffic) -> Self {
        let (masters, last_look) = (ArcSwapOption::empty(), Mutex::default());
        Self { shared: Arc::new(Shared { seeds, limit, masters, last_look, metrics }), traffic }
    }

    /// The same cluster, reached for another traffic.
    pub(super) fn for_traffic(&self, traffic: Traffic) -> Self {
        Self { shared: Arc::clone(&self.shared), traffic }
    }

    /// A slot of each master, and where that is.
    ///
    /// # Errors
    ///
    /// An [`Error`] when no server tells who the masters are.
    pub(super) async fn masters(&self) -> Result<Vec<(Slot, String)>, Error> {
        let masters = self.known().await?;
        Ok(masters.slots.masters().map(|(slot, address)| (slot, address.to_string())).collect())
    }

    /// Which of the masters has `slot`, as a number that others of its slots have, too.
    ///
    /// # Errors
    ///
    /// As [`Self::masters`].
    pub(super) async fn master_of(&self, slot: Slot) -> Result<usize, Error> {
        Ok(self.known().await?.slots.owner(slot).unwrap_or_default())
    }

    /// Has it looked who the masters are, by the way, unless somebody does.
    pub(super) fn look_again(&self) {
        if self.shared.last_look.try_lock().is_err() {
            return;
        }
        let cluster = self.clone();
        tokio::spawn(async move {
            let known = cluster.shared.masters.load_full();
            // If nobody answers, the next one who needs a master hears of it.
            let _ = cluster.look(known.as_ref()).await;
        });
    }

    /// Sends `commands`, follows redirections, and gives what became of each.
    ///
    /// # Errors
    ///
    /// An [`Error`] when the master of their slot doesn't answer, and nobody has taken its place.
    pub(super) async fn exchange(
        &self,
        commands: &mut Commands,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let answers = self.ask_owner(commands.slot, commands.pipeline(), used).await?;
        if !answers.iter().any(is_redirected) {
            return Ok(answers);
        }
        self.follow(commands, answers, used).await
    }

    /// Sends `pipeline` to the master of `slot`, or to the one that has taken its place.
    async fn ask_owner(
        &self,
        slot: Slot,
        pipeline: &Pipeline,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let mut masters = self.known().await?;
        loop {
            let Some(node) = masters.owner(slot, self.traffic) else {
                return Err(Error::Connect(format!("no server of the cluster has slot {}", slot.0)));
            };
            match node.exchange(pipeline, used).await {
                Err(error) if error.may_be_elsewhere() => {
                    let Ok(found) = self.look(Some(&masters)).await else { return Err(error) };
                    if found.owner(slot, self.traffic).is_none_or(|other| other.is(node)) {
                        return Err(error);
                    }
                    masters = found;
                }
                answers => return answers,
            }
        }
    }

    async fn known(&self) -> Result<Arc<Masters>, Error> {
        match self.shared.masters.load_full() {
            Some(known) => Ok(known),
            None => self.look(None).await,
        }
    }

    /// Looks who the masters are, unless somebody has since `known`, or a moment ago.
    async fn look(&self, known: Option<&Arc<Masters>>) -> Result<Arc<Masters>, Error> {
        let shared = &self.shared;
        let mut last_look = shared.last_look.lock().await;
        let current = shared.masters.load_full();
        if let Some(current) = &current
            && known.is_none_or(|known| !Arc::ptr_eq(current, known))
        {
            return Ok(Arc::clone(current));
        }
        if let Some(Look { at, failure }) = &*last_look
            && at.elapsed() < Self::LOOK_PAUSE
        {
            return match (failure, current) {
                (None, Some(current)) => Ok(current),
                (failure, _) => Err(failure.clone().unwrap_or_else(nobody_known)),
            };
        }
        let slots = shared.ask_around(current.as_deref()).await;
        *last_look = Some(Look { at: Instant::now(), failure: slots.as_ref().err().cloned() });
        let masters = Arc::new(shared.masters(slots?, current.as_deref()));
        shared.masters.store(Some(Arc::clone(&masters)));
        Ok(masters)
    }
}

impl Shared {
    /// Asks servers in any order, a few at a time, until one tells who has which slots.
    async fn ask_around(&self, known: Option<&Masters>) -> Result<Slots, Error> {
        let servers = known.into_iter().flat_map(|known| known.slots.servers());
        let mut servers: Vec<_> = servers.map(|address| self.url_of(address)).collect();
        servers.shuffle(&mut rand::rng());
        let mut failure = None;
        for some in servers.iter().chain(&self.seeds).collect::<Vec<_>>().chunks(Cluster::LOOK_AT_ONCE) {
            match select_ok(some.iter().map(|url| Box::pin(self.ask(url)))).await {
                Ok((slots, _)) => return Ok(slots),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(nobody_known))
    }

    /// Asks the server at `url`, be it a master or a replica.
    async fn ask(&self, url: &RedisUrl) -> Result<Slots, Error> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(self.limit));
        let mut connection = connect(url, &config, Role::Any, self.limit).await?;
        let mut pipeline = pipe();
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let answer = pipeline.query_async::<(Value,)>(&mut connection).await;
        let (answer,) = answer.map_err(|error| Error::from_answer(error, &pipeline))?;
        let unknown = || Error::Connect(format!("{url} knows of no server that has slots"));
        Slots::read(answer, &url.host()).ok_or_else(unknown)
    }

    /// The masters by `slots`, with the connections that there are already.
    fn masters(&self, slots: Slots, known: Option<&Masters>) -> Masters {
        let connections = |address| known.and_then(|known| known.connections(address)).cloned();
        let nodes =
            slots.masters().map(|(_, address)| connections(address).unwrap_or_else(|| self.connect_to(address)));
        Masters { nodes: nodes.collect(), slots }
    }

    /// Connections to the server at `address`, none of which is made yet.
    fn connect_to(&self, address: &Address) -> Connections {
        let node = Node::new(Server::Member(self.url_of(address).into()), self.limit, Arc::clone(&self.metrics));
        Connections { visits: node.another(), batches: node.another(), other: node }
    }

    fn url_of(&self, address: &Address) -> RedisUrl {
        self.seeds[0].at(&address.host, address.port)
    }
}

fn nobody_known() -> Error {
    Error::Connect("no server of the cluster is known".to_owned())
}
