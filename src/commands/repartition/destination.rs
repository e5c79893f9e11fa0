//! Where a move goes: the number of partitions, and how many members a segment keeps.

use crate::store::{KeySet, MaxMembers, Partitions};

/// Where a move goes. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Destination {
    /// The number of partitions.
    pub partitions: Option<Partitions>,
    /// How many members a segment keeps.
    pub members: Option<MembersKept>,
}

/// How many members a segment keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersKept {
    /// All of them.
    All,
    /// So many; a larger segment keeps a sample.
    UpTo(MaxMembers),
}

impl MembersKept {
    /// Parses a maximum, or `off` for all members.
    ///
    /// # Errors
    ///
    /// What the text must be, as a predicate: `must be ...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::All),
            text => MaxMembers::parse(text).map(Self::UpTo),
        }
    }

    fn max_members(self) -> Option<MaxMembers> {
        match self {
            Self::All => None,
            Self::UpTo(max) => Some(max),
        }
    }
}

impl Destination {
    /// Whether a data set with `keys` is there.
    pub(super) fn is_met_by(self, keys: KeySet) -> bool {
        self.partitions.is_none_or(|partitions| partitions == keys.partitions())
            && self.members.is_none_or(|members| members.max_members() == keys.max_members())
    }

    /// Returns the maximum of members if segments with the keys `old` keep more; otherwise `None`.
    pub(super) fn lower_maximum(self, old: KeySet) -> Option<MaxMembers> {
        let max = self.members?.max_members()?;
        old.max_members().is_none_or(|before| before.get() > max.get()).then_some(max)
    }

    /// Returns the new keys of a data set that has the keys `old`; `None` if its segments would have to keep all
    /// members again.
    pub(super) fn from(self, old: KeySet) -> Option<KeySet> {
        let max_members = self.members.map_or(old.max_members(), MembersKept::max_members);
        let is_possible = max_members.is_some() || old.max_members().is_none();
        is_possible.then(|| old.sibling(self.partitions.unwrap_or(old.partitions()), max_members))
    }
}

/// Returns the arguments of `repartition` for a move to `keys`.
pub(in crate::commands) fn arguments(keys: KeySet) -> String {
    let max_members = keys.max_members().map_or_else(String::new, |max| format!(" --max-members {max}"));
    format!("--to {}{max_members}", keys.partitions())
}
