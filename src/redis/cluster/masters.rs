//! The masters of a cluster, and the connections to them.

use super::slots::{Address, SlotMap};
use crate::redis::Slot;
use crate::redis::connection::Connection;
use crate::telemetry::Traffic;

/// The masters, with connections to each.
pub(super) struct Masters {
    pub(super) slots: SlotMap,
    /// In the order of [`SlotMap::masters`].
    pub(super) connections: Vec<MasterConnections>,
}

/// The connections to one master.
#[derive(Clone)]
pub(super) struct MasterConnections {
    visits: Connection,
    batches: Connection,
    other: Connection,
}

impl Masters {
    /// Returns the connection to the master of `slot`; `None` if no master has it.
    pub(super) fn owner(&self, slot: Slot, traffic: Traffic) -> Option<&Connection> {
        Some(self.connections[self.slots.owner(slot)?].of(traffic))
    }

    /// Returns the connections to the master at `address`.
    pub(super) fn connections_to(&self, address: &Address) -> Option<&MasterConnections> {
        let mut each = self.slots.masters().zip(&self.connections);
        each.find(|((_, master), _)| *master == address).map(|(_, connections)| connections)
    }
}

impl MasterConnections {
    /// `connection`, and two more to the same server.
    pub(super) fn new(connection: Connection) -> Self {
        Self { visits: connection.clone_config(), batches: connection.clone_config(), other: connection }
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
