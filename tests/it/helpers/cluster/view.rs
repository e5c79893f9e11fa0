//! `CLUSTER NODES`: the cluster as one of its nodes sees it.

use super::Node;

/// The cluster as one of its nodes sees it.
pub struct View(Vec<NodeEntry>);

/// A line of `CLUSTER NODES`.
struct NodeEntry {
    id: String,
    flags: Vec<String>,
    /// The id of a replica's master, `-` for a master.
    master: String,
    /// When its last answer to a ping came, in Unix milliseconds.
    pong_received: u64,
    /// First and last of each range.
    slots: Vec<(u16, u16)>,
}

impl View {
    pub fn of(node: &Node) -> Self {
        let lines: String = node.redis.call(&["CLUSTER", "NODES"]);
        Self(lines.lines().map(NodeEntry::parse).collect())
    }

    /// Returns whether the handshake with a node is complete.
    pub fn knows(&self, id: &str) -> bool {
        self.find(id).is_some_and(|node| !node.is(&["handshake"]))
    }

    /// Returns whether none of these nodes has failed.
    pub fn is_healthy(&self, ids: &[&str]) -> bool {
        let is_healthy = |node: &NodeEntry| !node.is(&["handshake", "noaddr", "fail", "fail?"]);
        ids.iter().all(|id| self.find(id).is_some_and(is_healthy))
    }

    /// Returns whether both views give these nodes the same masters and slots.
    pub fn agrees(&self, other: &Self, ids: &[&str]) -> bool {
        let role = |node: &NodeEntry| (node.master.clone(), node.slots.clone());
        ids.iter().all(|id| self.find(id).map(role) == other.find(id).map(role))
    }

    pub fn has_slots(&self, id: &str) -> bool {
        self.find(id).is_some_and(|node| !node.slots.is_empty())
    }

    /// Returns the ids of a master's replicas.
    pub fn replicas_of(&self, id: &str) -> Vec<String> {
        self.0.iter().filter(|node| node.master == id).map(|node| node.id.clone()).collect()
    }

    /// Returns the id of the node that has a slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        let has = |node: &&NodeEntry| node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        self.0.iter().find(has).map(|node| node.id.as_str())
    }

    /// Returns when the last answer of a node to a ping came, in Unix milliseconds.
    pub fn pong_received(&self, id: &str) -> u64 {
        self.find(id).map_or(0, |node| node.pong_received)
    }

    fn find(&self, id: &str) -> Option<&NodeEntry> {
        self.0.iter().find(|node| node.id == id)
    }
}

impl NodeEntry {
    /// Parses a line: id, address, flags, master, ping sent, pong received, epoch, link state, and the slots.
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (first.parse().unwrap(), last.parse().unwrap())
        };
        // Slots in migration are in brackets.
        let slots = words[8..].iter().filter(|text| !text.starts_with('['));
        Self {
            id: words[0].to_owned(),
            flags: words[2].split(',').map(str::to_owned).collect(),
            master: words[3].to_owned(),
            pong_received: words[5].parse().unwrap(),
            slots: slots.map(|text| range(text)).collect(),
        }
    }

    fn is(&self, any_of: &[&str]) -> bool {
        self.flags.iter().any(|flag| any_of.contains(&flag.as_str()))
    }
}
