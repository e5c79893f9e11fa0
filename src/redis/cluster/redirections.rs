//! Following redirections: what a server doesn't execute is sent where it says, in the order that the index needs.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::Cluster;
use super::masters::Connections;
use super::slots::Address;
use crate::redis::connection::{Node, Used};
use crate::redis::replication::reached;
use crate::redis::request::{Commands, Step};
use crate::redis::{Error, Slot};

/// Where a command that was not executed shall go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// To whoever has this slot.
    Owner(Slot),
    /// To this server, which has the slot.
    At(Address),
    /// To this server, which is about to have it.
    Asking(Address),
}

impl Cluster {
    /// How long to wait until a slot that moves is asked again.
    const RETRY_PAUSE: Duration = Duration::from_millis(5);

    /// Sends what was redirected where it belongs, step by step. A step is sent again, too, if one before it was redirected.
    pub(super) async fn follow(
        &self,
        commands: &Commands,
        mut answers: Vec<RedisResult<Value>>,
        used: &mut Used,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        if answers.iter().any(has_moved) {
            self.look_again();
        }
        let acks = commands.acks();
        let waiting = |at: &usize| acks.as_ref().is_some_and(|acks| acks.start == at + 1);
        let mut must_follow = false;
        for step in commands.steps() {
            let mut open = BTreeMap::new();
            for at in step.commands.clone() {
                // What waits for replicas is sent along with the last that writes, and so is sent again with it.
                let redirection = [Some(at), waiting(&at).then_some(at + 1)].into_iter().flatten();
                let slot = commands.slot_of(at);
                let mut redirection = redirection.filter_map(|at| place_of(&answers[at], slot));
                match redirection.next() {
                    Some(place) => drop(open.insert(at, place)),
                    None if must_follow => drop(open.insert(at, Place::Owner(slot))),
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
        for (place, sent) in places {
            let pipeline = commands.some(step, &sent, matches!(place, Place::Asking(_)));
            let results = match &place {
                Place::Owner(slot) => self.ask_owner(*slot, &pipeline, used).await,
                Place::At(address) | Place::Asking(address) => self.node_at(address).exchange(&pipeline, used).await,
            };
            let mut results = match results {
                // Whoever sent us there may know better by now.
                Err(error) if error.may_be_elsewhere() && !matches!(place, Place::Owner(_)) => {
                    open.extend(sent.into_iter().map(|at| (at, Place::Owner(commands.slot_of(at)))));
                    self.look_again();
                    continue;
                }
                results => results?,
            };
            let waited = results.split_off(sent.len());
            let has_moved = waited.iter().any(is_redirected);
            for (at, result) in sent.into_iter().zip(results) {
                match place_of(&result, commands.slot_of(at)) {
                    Some(place) => drop(open.insert(at, place)),
                    // Its key is not there any more, or nobody waited for it.
                    None if has_moved => drop(open.insert(at, Place::Owner(commands.slot_of(at)))),
                    None => answers[at] = result,
                }
            }
            let waiting = commands.acks().into_iter().flatten().filter(|_| !has_moved);
            for (at, result) in waiting.zip(waited) {
                // Each server that something was written to has been waited for, and the worst counts.
                if is_redirected(&answers[at]) || is_worse(&result, &answers[at]) {
                    answers[at] = result;
                }
            }
        }
        Ok(())
    }

    /// The connection to the server at `address`, be it a master we know or not.
    fn node_at(&self, address: &Address) -> Node {
        let known = self.shared.masters.load();
        let known = known.as_ref().and_then(|masters| masters.connections(address));
        known.map_or_else(|| self.shared.stranger(address), Connections::clone).of(self.traffic).clone()
    }
}

/// Whether another server has the slot.
fn has_moved(answer: &RedisResult<Value>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some("MOVED"))
}

/// Whether a command was not executed, and must go elsewhere.
pub(super) fn is_redirected(answer: &RedisResult<Value>) -> bool {
    place_of(answer, Slot(0)).is_some()
}

/// Where a command shall go that was not executed; none if it was, whatever came of it.
fn place_of(answer: &RedisResult<Value>, slot: Slot) -> Option<Place> {
    let error = answer.as_ref().err()?;
    let told = || error.redirect_node().and_then(|(address, _)| Address::parse(address));
    match error.code()? {
        "MOVED" => Some(told().map_or(Place::Owner(slot), Place::At)),
        "ASK" => Some(told().map_or(Place::Owner(slot), Place::Asking)),
        _ => None,
    }
}

/// Whether fewer replicas have been waited for, or none because of an error.
fn is_worse(result: &RedisResult<Value>, than: &RedisResult<Value>) -> bool {
    let reached = |result: &RedisResult<Value>| result.as_ref().map_or(-1, reached);
    reached(result) < reached(than)
}
