//! The masters of a cluster, and the connections to them.

use super::slots::{Address, Slots};
use crate::redis::Slot;
use crate::redis::connection::Node;
use crate::telemetry::Traffic;

/// Who the masters are, as far as we know.
pub(super) struct Masters {
    pub(super) slots: Slots,
    /// In the order of [`Slots::masters`].
    pub(super) nodes: Vec<Connections>,
}

/// The connections to one master.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) visits: Node,
    pub(super) batches: Node,
    pub(super) other: Node,
}

impl Masters {
    /// The connection to the master of `slot`, if anybody has it.
    pub(super) fn owner(&self, slot: Slot, traffic: Traffic) -> Option<&Node> {
        Some(self.nodes[self.slots.owner(slot)?].of(traffic))
    }

    /// The connections to the master at `address`.
    pub(super) fn connections(&self, address: &Address) -> Option<&Connections> {
        let mut each = self.slots.masters().zip(&self.nodes);
        each.find(|((_, master), _)| *master == address).map(|(_, connections)| connections)
    }
}

impl Connections {
    /// The one for `traffic`.
    pub(super) fn of(&self, traffic: Traffic) -> &Node {
        match traffic {
            Traffic::Visits => &self.visits,
            Traffic::Batches => &self.batches,
            Traffic::Other => &self.other,
        }
    }
}
