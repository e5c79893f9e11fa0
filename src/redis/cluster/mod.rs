//! Redis Cluster: requests go to the primary of their slot and follow its redirections.
//!
//! The `cluster_async` module of the `redis` crate follows `ASK` by sending the whole pipeline behind one `ASKING`,
//! which applies to one command, and not in the same write (`get_redirected_connection` in
//! `src/cluster_handling/async_connection/mod.rs` of redis 1.8). While a slot migrates, such a pipeline bounces between
//! two servers until the client gives up. Besides, `ASK` concerns one command. Others of the pipeline may have their
//! keys on the first server, and would create them again on the other one, where they collide with the migrated keys.
//!
//! Therefore a request is sent as one pipeline, and its redirected commands are sent again one by one, in the order of
//! its [steps](super::request). A command may be executed twice.

mod discovery;
mod primaries;
mod redirect;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, RedisResult, Value};

use self::discovery::Discovery;
use self::redirect::{RedirectTarget, has_moved, is_redirected};
use super::deadline::Deadline;
use super::error::is_of_a_lost_primary;
use super::replication::replicas_reached;
use super::request::{Request, Step};
use super::{Error, Limits, RedisUrl, Slot};
use crate::telemetry::{Metrics, Traffic};

/// The primaries of a cluster, reached for one traffic. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    discovery: Arc<Discovery>,
    traffic: Traffic,
}

impl Cluster {
    /// Pause before a command on a migrating slot is sent again.
    const RETRY_PAUSE: Duration = Duration::from_millis(5);

    /// Returns the cluster of the servers at `seeds`.
    pub(crate) fn new(seeds: Vec<RedisUrl>, limits: Limits, metrics: Arc<Metrics>, traffic: Traffic) -> Self {
        Self { discovery: Arc::new(Discovery::new(seeds, limits, metrics)), traffic }
    }

    /// Returns the same cluster for another traffic.
    pub(crate) fn for_traffic(&self, traffic: Traffic) -> Self {
        Self { discovery: Arc::clone(&self.discovery), traffic }
    }

    /// Returns one slot and the address of each primary.
    ///
    /// # Errors
    ///
    /// An [`Error`] if no server answers.
    pub(crate) async fn primaries(&self) -> Result<Vec<(Slot, String)>, Error> {
        let primaries = self.discovery.primaries().await?;
        Ok(primaries.slots.primaries().map(|(slot, address)| (slot, address.to_string())).collect())
    }

    /// Returns the index in [`Self::primaries`] of the primary of each of `slots`.
    ///
    /// # Errors
    ///
    /// As [`Self::primaries`].
    pub(crate) async fn primaries_of(&self, slots: Vec<Slot>) -> Result<Vec<usize>, Error> {
        let primaries = self.discovery.primaries().await?;
        Ok(slots.into_iter().map(|slot| primaries.slots.owner(slot).unwrap_or_default()).collect())
    }

    /// Reconnects to the primary of `slot` before it is used again.
    pub(crate) fn invalidate(&self, slot: Slot) {
        let primaries = self.discovery.known_primaries();
        if let Some(connection) = primaries.as_ref().and_then(|primaries| primaries.owner(slot, self.traffic)) {
            connection.invalidate();
        }
    }

    /// Sends `request`, follows redirections, and returns a result for each command.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the primary of a slot doesn't answer by `deadline` and no other server has replaced it.
    pub(crate) async fn send(
        &self,
        request: &mut Request,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let answers = self.send_and_follow(request, deadline).await;
        // A primary that doesn't answer, or is isolated, may have been replaced.
        if answers.as_ref().map_or(true, |answers| answers.iter().any(is_of_a_lost_primary)) {
            self.discovery.spawn_refresh();
        }
        answers
    }

    async fn send_and_follow(
        &self,
        request: &mut Request,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let (slot, is_once) = (request.slot_of(0), request.is_once());
        let answers = self.send_to_owner(slot, request.pipeline(), is_once, deadline).await?;
        if answers.iter().any(is_redirected) { self.follow(request, answers, deadline).await } else { Ok(answers) }
    }

    /// Sends `pipeline` to the primary of `slot`, or to the server that has replaced it.
    async fn send_to_owner(
        &self,
        slot: Slot,
        pipeline: &Pipeline,
        is_once: bool,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let mut primaries = deadline.bound(self.discovery.primaries()).await?;
        loop {
            let Some(connection) = primaries.owner(slot, self.traffic) else {
                return Err(Error::Connect(format!("no server of the cluster has slot {}", slot.0)));
            };
            let answers = match is_once {
                true => connection.send_once(pipeline, deadline).await,
                false => connection.send(pipeline, deadline).await,
            };
            match answers {
                // The server may have run the commands.
                Err(error @ Error::Lost(_)) if is_once => return Err(error),
                Err(error) if error.may_be_elsewhere() => {
                    let refreshed = deadline.bound(self.discovery.refresh(Some(&primaries))).await;
                    let Ok(refreshed) = refreshed else { return Err(error) };
                    if refreshed.owner(slot, self.traffic).is_none_or(|other| other.ptr_eq(connection)) {
                        return Err(error);
                    }
                    primaries = refreshed;
                }
                answers => return answers,
            }
        }
    }

    /// Sends redirected commands to their targets, step by step. If a step was redirected, the later ones are sent
    /// again as well.
    async fn follow(
        &self,
        request: &Request,
        mut answers: Vec<RedisResult<Value>>,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        if answers.iter().any(has_moved) {
            self.discovery.spawn_refresh();
        }
        let acks = request.acks();
        let waits_behind = |index: usize| acks.as_ref().is_some_and(|acks| acks.start == index + 1);
        let mut must_follow = false;
        for step in request.steps() {
            let mut open = BTreeMap::new();
            for index in step.commands.clone() {
                // The wait for replicas belongs to the last command that writes, and is sent again with it.
                let commands = [Some(index), waits_behind(index).then_some(index + 1)].into_iter().flatten();
                let slot = request.slot_of(index);
                let mut targets = commands.filter_map(|index| RedirectTarget::of(&answers[index], slot));
                match targets.next() {
                    Some(target) => drop(open.insert(index, target)),
                    None if must_follow => drop(open.insert(index, RedirectTarget::Owner(slot))),
                    None => {}
                }
            }
            must_follow |= !open.is_empty();
            let mut pause = Duration::ZERO;
            while !open.is_empty() {
                deadline.sleep(pause).await?;
                self.send_step(request, step, &mut open, &mut answers, deadline).await?;
                // The slot is migrating, or two servers name each other as its owner.
                pause = Self::RETRY_PAUSE;
            }
        }
        Ok(answers)
    }

    /// Sends the `open` commands of `step`, and leaves in `open` those that were redirected once more.
    async fn send_step(
        &self,
        request: &Request,
        step: &Step,
        open: &mut BTreeMap<usize, RedirectTarget>,
        answers: &mut [RedisResult<Value>],
        deadline: Deadline,
    ) -> Result<(), Error> {
        let mut by_target: BTreeMap<RedirectTarget, Vec<usize>> = BTreeMap::new();
        for (index, target) in std::mem::take(open) {
            by_target.entry(target).or_default().push(index);
        }
        for (target, sent) in by_target {
            let pipeline = request.subset(step, &sent, matches!(target, RedirectTarget::Importing(_)));
            let results = match &target {
                RedirectTarget::Owner(slot) => self.send_to_owner(*slot, &pipeline, request.is_once(), deadline).await,
                RedirectTarget::At(address) | RedirectTarget::Importing(address) => {
                    let connections = self.discovery.connections_to(address);
                    let connection = connections.of(self.traffic);
                    match request.is_once() {
                        true => connection.send_once(&pipeline, deadline).await,
                        false => connection.send(&pipeline, deadline).await,
                    }
                }
            };
            let mut results = match results {
                // The server that redirected may have learned of a new owner.
                Err(error @ Error::Lost(_)) if request.is_once() => return Err(error),
                Err(error) if error.may_be_elsewhere() && !matches!(target, RedirectTarget::Owner(_)) => {
                    open.extend(sent.into_iter().map(|index| (index, RedirectTarget::Owner(request.slot_of(index)))));
                    self.discovery.spawn_refresh();
                    continue;
                }
                results => results?,
            };
            let waits = results.split_off(sent.len());
            let has_moved = waits.iter().any(is_redirected);
            if let (true, true, Some(acks)) = (has_moved, request.is_once(), request.write_acks())
                && !results.iter().all(is_redirected)
            {
                // Some commands were executed, and must not be again.
                return Err(Error::NotReplicated { reached: 0, needed: acks.replicas });
            }
            for (index, result) in sent.into_iter().zip(results) {
                let slot = request.slot_of(index);
                match RedirectTarget::of(&result, slot) {
                    Some(target) => drop(open.insert(index, target)),
                    // The key has moved again, or the wait for replicas didn't happen.
                    None if has_moved => drop(open.insert(index, RedirectTarget::Owner(slot))),
                    None => answers[index] = result,
                }
            }
            let acks = request.acks().into_iter().flatten().filter(|_| !has_moved);
            for (index, result) in acks.zip(waits) {
                // Each server with a write has waited for its replicas. The worst result counts.
                if is_redirected(&answers[index]) || is_worse(&result, &answers[index]) {
                    answers[index] = result;
                }
            }
        }
        Ok(())
    }
}

/// Whether a wait reached fewer replicas than another. An error reached none.
fn is_worse(result: &RedisResult<Value>, than: &RedisResult<Value>) -> bool {
    let reached = |result: &RedisResult<Value>| result.as_ref().map_or(-1, replicas_reached);
    reached(result) < reached(than)
}
