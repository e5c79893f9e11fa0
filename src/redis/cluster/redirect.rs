//! Redirections: `MOVED` and `ASK`.

use redis::{RedisResult, Value};

use super::slots::Address;
use crate::redis::Slot;

/// The server that must execute a command instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RedirectTarget {
    /// The primary of this slot.
    Owner(Slot),
    /// This server, which has the slot.
    At(Address),
    /// This server, which is importing the slot and requires `ASKING` before each command.
    Importing(Address),
}

impl RedirectTarget {
    /// Returns the target of the command on `slot` that got `answer`; `None` if the command was executed.
    pub(super) fn of(answer: &RedisResult<Value>, slot: Slot) -> Option<Self> {
        let error = answer.as_ref().err()?;
        let address = || error.redirect_node().and_then(|(address, _)| Address::parse(address));
        match error.code()? {
            "MOVED" => Some(address().map_or(Self::Owner(slot), Self::At)),
            "ASK" => Some(address().map_or(Self::Owner(slot), Self::Importing)),
            _ => None,
        }
    }
}

/// Whether the command was not executed and must go to another server.
pub(super) fn is_redirected(answer: &RedisResult<Value>) -> bool {
    RedirectTarget::of(answer, Slot(0)).is_some()
}

/// Whether another server has the slot for good.
pub(super) fn has_moved(answer: &RedisResult<Value>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some("MOVED"))
}
