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

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::seq::SliceRandom as _;
use redis::{AsyncConnectionConfig, FromRedisValue as _, Pipeline, RedisResult, Value, pipe};
use tokio::sync::Mutex;

use self::masters::{Connections, Masters};
use self::redirections::is_redirected;
use self::slots::{Address, Slots};
use super::connection::{Node, Server, Used};
use super::handshake::{Role, connect};
use super::request::Commands;
use super::{Error, Limits, RedisUrl, Slot};
use crate::redis::info_field;
use crate::telemetry::{Metrics, Traffic};

/// The masters of a cluster, reached for one traffic.
#[derive(Clone)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    traffic: Traffic,
}

/// What all traffics share.
struct Shared {
    seeds: Vec<RedisUrl>,
    limits: Limits,
    masters: ArcSwapOption<Masters>,
    /// Connections to servers that we were sent to and that have no slot yet, as when a machine is added.
    strangers: std::sync::Mutex<HashMap<Address, Connections>>,
    /// Held while somebody looks who the masters are; those who wait for it share what came of it.
    last_look: Arc<Mutex<Option<Look>>>,
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

    /// The cluster that the servers at `seeds` belong to, each reached within `limits`.
    pub(crate) fn new(seeds: Vec<RedisUrl>, limits: Limits, metrics: Arc<Metrics>, traffic: Traffic) -> Self {
        let (masters, strangers, last_look) = Default::default();
        Self { shared: Arc::new(Shared { seeds, limits, masters, strangers, last_look, metrics }), traffic }
    }

    /// The same cluster, reached for another traffic.
    pub(crate) fn for_traffic(&self, traffic: Traffic) -> Self {
        Self { shared: Arc::clone(&self.shared), traffic }
    }

    /// A slot of each master, and where that is.
    ///
    /// # Errors
    ///
    /// An [`Error`] when no server tells who the masters are.
    pub(crate) async fn masters(&self) -> Result<Vec<(Slot, String)>, Error> {
        let masters = self.known().await?;
        Ok(masters.slots.masters().map(|(slot, address)| (slot, address.to_string())).collect())
    }

    /// Which of the masters has each of `slots`, by its place in [`Self::masters`].
    ///
    /// # Errors
    ///
    /// As [`Self::masters`].
    pub(crate) async fn masters_of(&self, slots: Vec<Slot>) -> Result<Vec<usize>, Error> {
        let known = self.known().await?;
        Ok(slots.into_iter().map(|slot| known.slots.owner(slot).unwrap_or_default()).collect())
    }

    /// Has it looked who the masters are, by the way, unless somebody does.
    pub(crate) fn look_again(&self) {
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
    pub(crate) async fn exchange(
        &self,
        commands: &mut Commands,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let answers = self.ask_owner(commands.slot_of(0), commands.pipeline(), used).await?;
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
        let shared = Arc::clone(&self.shared);
        let mut last_look = Arc::clone(&shared.last_look).lock_owned().await;
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
        // In a task of its own: a caller that goes away must not break off what the next one needs too.
        let looking = tokio::spawn(async move {
            let slots = shared.ask_around(current.as_deref()).await;
            *last_look = Some(Look { at: Instant::now(), failure: slots.as_ref().err().cloned() });
            let masters = Arc::new(shared.masters(slots?, current.as_deref()));
            shared.masters.store(Some(Arc::clone(&masters)));
            Ok(masters)
        });
        looking.await.unwrap_or_else(|stopped| Err(Error::Connect(stopped.to_string())))
    }
}

impl Shared {
    /// Asks servers in any order, a few at a time, until one tells who has which slots.
    async fn ask_around(&self, known: Option<&Masters>) -> Result<Slots, Error> {
        let servers = known.into_iter().flat_map(|known| known.slots.servers());
        let mut servers: Vec<_> = servers.map(|address| self.url_of(address)).collect();
        servers.shuffle(&mut rand::rng());
        let (mut failure, mut of_a_lost_one) = (None, None);
        for some in servers.iter().chain(&self.seeds).collect::<Vec<_>>().chunks(Cluster::LOOK_AT_ONCE) {
            let mut asking: FuturesUnordered<_> = some.iter().map(|url| self.ask(url)).collect();
            while let Some(answer) = asking.next().await {
                match answer {
                    Ok((slots, true)) => return Ok(slots),
                    // It may have lost the others, and they may have gone on without it.
                    Ok((slots, false)) => of_a_lost_one = Some(slots),
                    Err(error) => failure = Some(error),
                }
            }
        }
        of_a_lost_one.ok_or_else(|| failure.unwrap_or_else(nobody_known))
    }

    /// Asks the server at `url`, be it a master or a replica, who has which slots, and whether all is well with the cluster, as far
    /// as it tells.
    async fn ask(&self, url: &RedisUrl) -> Result<(Slots, bool), Error> {
        let limit = self.limits.connect;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(limit));
        let mut connection = connect(url, &config, Role::Any, limit).await?;
        let mut pipeline = pipe();
        pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS").ignore_errors();
        let answers = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        let mut answers = answers.map_err(|error| Error::from_answer(error, &pipeline))?.into_iter();
        let info = answers.next().and_then(Result::ok).and_then(|info| String::from_redis_value(info).ok());
        let is_well = info.is_none_or(|info| info_field(&info, "cluster_state") != Some("fail"));
        let slots = answers.next().transpose().map_err(|error| Error::from_command(error, &pipeline, 1))?;
        let unknown = || {
            Error::Connect(format!(
                "{url} knows of no server that has slots; `redis-cli --cluster create` gives them some"
            ))
        };
        let slots = slots.and_then(|slots| Slots::read(slots, &url.host())).ok_or_else(unknown)?;
        Ok((slots, is_well))
    }

    /// The masters by `slots`, with the connections that there are already.
    fn masters(&self, slots: Slots, known: Option<&Masters>) -> Masters {
        let mut strangers = self.strangers();
        let mut connections =
            |address| known.and_then(|known| known.connections(address)).cloned().or_else(|| strangers.remove(address));
        let nodes =
            slots.masters().map(|(_, address)| connections(address).unwrap_or_else(|| self.connect_to(address)));
        Masters { nodes: nodes.collect(), slots }
    }

    /// Connections to the server at `address`, which is no master we know.
    fn stranger(&self, address: &Address) -> Connections {
        self.strangers().entry(address.clone()).or_insert_with(|| self.connect_to(address)).clone()
    }

    fn strangers(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Connections>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections to the server at `address`, none of which is made yet.
    fn connect_to(&self, address: &Address) -> Connections {
        let node = Node::new(Server::Member(self.url_of(address).into()), self.limits, Arc::clone(&self.metrics));
        Connections { visits: node.another(), batches: node.another(), other: node }
    }

    fn url_of(&self, address: &Address) -> RedisUrl {
        self.seeds[0].at(&address.host, address.port)
    }
}

fn nobody_known() -> Error {
    Error::Connect("no server of the cluster is known".to_owned())
}
