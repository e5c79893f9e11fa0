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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::select_ok;
use rand::seq::SliceRandom as _;
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, pipe};
use tokio::sync::Mutex;

use super::commands::{Commands, Step};
use super::error::Error;
use super::greeting::{Role, connect};
use super::keys::Slot;
use super::node::{Node, Server, Used};
use super::slots::{Address, Slots};
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
    /// Held while somebody looks who the masters are; when that was last.
    looked_at: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// Who the masters are, as far as we know.
struct Masters {
    slots: Slots,
    /// In the order of [`Slots::masters`].
    nodes: Vec<Connections>,
}

/// The connections to one master.
#[derive(Clone)]
struct Connections {
    visits: Node,
    batches: Node,
    other: Node,
}

/// Where a command that was not executed shall go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// To whoever has the slot.
    Owner,
    /// To this server, which has the slot.
    At(Address),
    /// To this server, which is about to have it.
    Asking(Address),
}

impl Cluster {
    /// Who the masters are is asked again no sooner than after this.
    const LOOK_PAUSE: Duration = Duration::from_millis(100);
    /// How many servers are asked at once. The first answer counts.
    const LOOK_AT_ONCE: usize = 3;
    /// How long to wait until a slot that moves is asked again.
    const RETRY_PAUSE: Duration = Duration::from_millis(5);

    /// The cluster that the servers at `seeds` belong to, to each of which connecting may take `limit`.
    pub(super) fn new(seeds: Vec<RedisUrl>, limit: Duration, metrics: Arc<Metrics>, traffic: Traffic) -> Self {
        let (masters, looked_at) = (ArcSwapOption::empty(), Mutex::default());
        Self { shared: Arc::new(Shared { seeds, limit, masters, looked_at, metrics }), traffic }
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

    /// Has it looked who the masters are, soon and by the way.
    pub(super) fn look_again(&self) {
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
        if answers.iter().all(|answer| place_of(answer).is_none()) {
            return Ok(answers);
        }
        self.follow(commands, answers, used).await
    }

    /// Sends what was redirected where it belongs, step by step. A step is sent again, too, if one before it was redirected.
    async fn follow(
        &self,
        commands: &Commands,
        mut answers: Vec<RedisResult<Value>>,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let acks = commands.acks();
        let waiting = |at: &usize| acks.as_ref().is_some_and(|acks| acks.start == at + 1);
        let mut must_follow = false;
        for step in commands.steps() {
            let mut open = BTreeMap::new();
            for at in step.commands.clone() {
                // What waits for replicas is sent along with the last that writes, and so is sent again with it.
                let redirection = [Some(at), waiting(&at).then_some(at + 1)].into_iter().flatten();
                let mut redirection = redirection.filter_map(|at| place_of(&answers[at]));
                match redirection.next() {
                    Some(place) => drop(open.insert(at, place)),
                    None if must_follow => drop(open.insert(at, Place::Owner)),
                    None => {}
                }
            }
            must_follow |= !open.is_empty();
            let mut pause = Duration::ZERO;
            while !open.is_empty() {
                tokio::time::sleep(pause).await;
                self.take_step(commands, step, &mut open, &mut answers, used).await?;
                // It is on its way, or each of two servers takes the other for the one that has it.
                pause = Self::RETRY_PAUSE;
            }
        }
        Ok(answers)
    }

    /// Sends what is `open` of a step, and leaves in `open` what was redirected once more.
    async fn take_step(
        &self,
        commands: &Commands,
        step: &Step,
        open: &mut BTreeMap<usize, Place>,
        answers: &mut [RedisResult<Value>],
        used: &mut Used,
    ) -> Result<(), Error> {
        let mut places: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (at, place) in std::mem::take(open) {
            places.entry(place).or_default().push(at);
        }
        if places.keys().any(|place| matches!(place, Place::At(_))) {
            self.look_again();
        }
        for (place, sent) in places {
            let pipeline = commands.some(step, &sent, matches!(place, Place::Asking(_)));
            let results = match &place {
                Place::Owner => self.ask_owner(commands.slot, &pipeline, used).await,
                Place::At(address) | Place::Asking(address) => self.node_at(address).exchange(&pipeline, used).await,
            };
            let mut results = match results {
                // Whoever sent us there may know better by now.
                Err(error) if error.may_be_elsewhere() && place != Place::Owner => {
                    open.extend(sent.into_iter().map(|at| (at, Place::Owner)));
                    self.look_again();
                    continue;
                }
                results => results?,
            };
            let waited = results.split_off(sent.len());
            let has_moved = waited.iter().any(|result| place_of(result).is_some());
            for (at, result) in sent.into_iter().zip(results) {
                match place_of(&result) {
                    Some(place) => drop(open.insert(at, place)),
                    // Its key is not there any more, or nobody waited for it.
                    None if has_moved => drop(open.insert(at, Place::Owner)),
                    None => answers[at] = result,
                }
            }
            let waiting = commands.acks().into_iter().flatten().filter(|_| !has_moved);
            for (at, result) in waiting.zip(waited) {
                // Each server that something was written to has been waited for, and the worst counts.
                if place_of(&answers[at]).is_some() || is_worse(&result, &answers[at]) {
                    answers[at] = result;
                }
            }
        }
        Ok(())
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

    /// The connection to the server at `address`, be it a master we know or not.
    fn node_at(&self, address: &Address) -> Node {
        let known = self.shared.masters.load();
        let known = known.as_ref().and_then(|masters| masters.connections(address));
        known.map_or_else(|| self.shared.connect_to(address), Connections::clone).of(self.traffic).clone()
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
        let mut looked_at = shared.looked_at.lock().await;
        let current = shared.masters.load_full();
        match (&current, known) {
            (Some(current), None) => return Ok(Arc::clone(current)),
            (Some(current), Some(known)) if !Arc::ptr_eq(current, known) => return Ok(Arc::clone(current)),
            (Some(current), _) if looked_at.is_some_and(|at| at.elapsed() < Self::LOOK_PAUSE) => {
                return Ok(Arc::clone(current));
            }
            _ => {}
        }
        let slots = shared.ask_around(current.as_deref()).await;
        *looked_at = Some(Instant::now());
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
        Err(failure.unwrap_or_else(|| Error::Connect("no server of the cluster is known".to_owned())))
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

impl Masters {
    fn owner(&self, slot: Slot, traffic: Traffic) -> Option<&Node> {
        Some(self.nodes[self.slots.owner(slot)?].of(traffic))
    }

    fn connections(&self, address: &Address) -> Option<&Connections> {
        let mut each = self.slots.masters().zip(&self.nodes);
        each.find(|((_, master), _)| *master == address).map(|(_, connections)| connections)
    }
}

impl Connections {
    fn of(&self, traffic: Traffic) -> &Node {
        match traffic {
            Traffic::Visits => &self.visits,
            Traffic::Batches => &self.batches,
            Traffic::Other => &self.other,
        }
    }
}

/// Where a command shall go that was not executed; none if it was, whatever came of it.
fn place_of(answer: &RedisResult<Value>) -> Option<Place> {
    let error = answer.as_ref().err()?;
    let told = || error.redirect_node().and_then(|(address, _)| Address::parse(address));
    match error.code()? {
        "MOVED" => Some(told().map_or(Place::Owner, Place::At)),
        "ASK" => Some(told().map_or(Place::Owner, Place::Asking)),
        // The keys of one command are not all at one server.
        "TRYAGAIN" => Some(Place::Owner),
        _ => None,
    }
}

/// Whether fewer replicas have been waited for, or none because of an error.
fn is_worse(result: &RedisResult<Value>, than: &RedisResult<Value>) -> bool {
    let reached = |result: &RedisResult<Value>| match result {
        Ok(Value::Int(replicas)) => *replicas,
        Ok(Value::Array(reached)) => {
            reached.last().map_or(0, |last| if let Value::Int(replicas) = last { *replicas } else { 0 })
        }
        Ok(_) => 0,
        Err(_) => -1,
    };
    reached(result) < reached(than)
}
