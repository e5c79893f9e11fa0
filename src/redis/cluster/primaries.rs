//! The primaries of a cluster, and the connections to them.

use super::slots::{Address, SlotMap};
use crate::redis::Slot;
use crate::redis::connection::Connection;
use crate::telemetry::Traffic;

/// The primaries, with connections to each.
pub(super) struct Primaries {
    pub(super) slots: SlotMap,
    /// In the order of [`SlotMap::primaries`].
    pub(super) connections: Vec<PrimaryConnections>,
}

/// The connections to one primary.
#[derive(Clone)]
pub(super) struct PrimaryConnections {
    visits: Connection,
    batches: Connection,
    other: Connection,
}

impl Primaries {
    /// Returns the connection to the primary of `slot`; `None` if no primary has it.
    pub(super) fn owner(&self, slot: Slot, traffic: Traffic) -> Option<&Connection> {
        Some(self.connections[self.slots.owner(slot)?].of(traffic))
    }

    /// Returns the connections to the primary at `address`.
    pub(super) fn connections_to(&self, address: &Address) -> Option<&PrimaryConnections> {
        let mut each = self.slots.primaries().zip(&self.connections);
        each.find(|((_, primary), _)| *primary == address).map(|(_, connections)| connections)
    }
}

impl PrimaryConnections {
    /// `connection`, and two more to the same server.
    pub(super) fn new(connection: Connection) -> Self {
        Self { visits: connection.sibling(), batches: connection.sibling(), other: connection }
    }

    /// Returns the connection for `traffic`.
    pub(super) fn of(&self, traffic: Traffic) -> &Connection {
        match traffic {
            Traffic::Visits => &self.visits,
            Traffic::Batches => &self.batches,
            Traffic::Other => &self.other,
        }
    }
}
