//! What a node knows of its cluster: `CLUSTER NODES`, read.

use super::Node;

/// The cluster as one of its nodes sees it.
pub struct View(Vec<Seen>);

struct Seen {
    id: String,
    flags: Vec<String>,
    /// Of a replica.
    master: String,
    /// First and last of each range.
    slots: Vec<(u16, u16)>,
}

impl View {
    pub fn of(node: &Node) -> Self {
        let lines: String = node.redis.call(&["CLUSTER", "NODES"]);
        Self(lines.lines().map(Seen::parse).collect())
    }

    /// Whether this node has shaken hands with that one.
    pub fn knows(&self, id: &str) -> bool {
        self.find(id).is_some_and(|node| !node.is(&["handshake"]))
    }

    /// Whether nothing is wrong with any of these.
    pub fn is_well(&self, ids: &[&str]) -> bool {
        let is_well = |node: &Seen| !node.is(&["handshake", "noaddr", "fail", "fail?"]);
        ids.iter().all(|id| self.find(id).is_some_and(is_well))
    }

    /// Whether another view has these as replicas of the same masters, and with the same slots.
    pub fn agrees(&self, other: &Self, ids: &[&str]) -> bool {
        let role = |node: &Seen| (node.master.clone(), node.slots.clone());
        ids.iter().all(|id| self.find(id).map(role) == other.find(id).map(role))
    }

    pub fn has_slots(&self, id: &str) -> bool {
        self.find(id).is_some_and(|node| !node.slots.is_empty())
    }

    /// The ids of a master's replicas.
    pub fn replicas_of(&self, id: &str) -> Vec<String> {
        self.0.iter().filter(|node| node.master == id).map(|node| node.id.clone()).collect()
    }

    /// The id of the node that has a slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        let has = |node: &&Seen| node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        self.0.iter().find(has).map(|node| node.id.as_str())
    }

    fn find(&self, id: &str) -> Option<&Seen> {
        self.0.iter().find(|node| node.id == id)
    }
}

impl Seen {
    /// Reads a line: id, address, flags, master, when it was asked and when it answered, epoch, link, and then its slots.
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (first.parse().unwrap(), last.parse().unwrap())
        };
        // Slots that are on their way stand in brackets, beside those that it has.
        let slots = words[8..].iter().filter(|text| !text.starts_with('['));
        Self {
            id: words[0].to_owned(),
            flags: words[2].split(',').map(str::to_owned).collect(),
            master: words[3].to_owned(),
            slots: slots.map(|text| range(text)).collect(),
        }
    }

    fn is(&self, any_of: &[&str]) -> bool {
        self.flags.iter().any(|flag| any_of.contains(&flag.as_str()))
    }
}
