//! The visits of a batch that belong to one partition, as commands.

use std::ops::Range;

use ::redis::Cmd;

use crate::redis::Slot;
use crate::store::keys::KeyNames;
use crate::store::{Partition, SegmentKey};

/// The visits of a batch that belong to one partition, as commands.
pub(in crate::store) struct PartitionBatch {
    pub(in crate::store) partition: Partition,
    pub(in crate::store) member_commands: Vec<MemberCommand>,
    /// The indices of the visits in the batch, in order of the commands.
    pub(super) visits: Vec<usize>,
}

/// A `ZADD GT` of up to [`Batch::MAX_VISITS_PER_COMMAND`] visits to a segment.
pub(in crate::store) struct MemberCommand {
    pub(super) command: Cmd,
    pub(in crate::store) segment: usize,
    pub(in crate::store) key: SegmentKey,
    /// The range of its visits in [`PartitionBatch::visits`].
    pub(super) visits: Range<usize>,
}

impl PartitionBatch {
    /// Takes the commands that write members, with their slots.
    pub(in crate::store) fn take_commands(&mut self) -> impl ExactSizeIterator<Item = (Slot, Cmd)> {
        let slot = self.partition.slot();
        self.member_commands.iter_mut().map(move |command| (slot, std::mem::take(&mut command.command)))
    }

    /// Returns the commands that write members, each with the index of its segment and its key.
    pub(in crate::store) fn commands(&self) -> impl Iterator<Item = (usize, SegmentKey, &Cmd)> {
        self.member_commands.iter().map(|command| (command.segment, command.key, &command.command))
    }

    /// Returns the command that adds the segments to the partition's index.
    pub(in crate::store) fn index_command(&self, key_names: &KeyNames, segment_names: &[Box<str>]) -> (Slot, Cmd) {
        let key = key_names.index(self.partition);
        // The commands of a segment follow each other.
        let segments = self.member_commands.chunk_by(|one, next| one.segment == next.segment);
        let names = segments.map(|commands| &*segment_names[commands[0].segment]);
        let bytes = "ZADD".len() + key.len() + names.clone().map(|name| "0".len() + name.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(2 + 2 * self.member_commands.len(), bytes);
        command.arg("ZADD").arg(key);
        names.for_each(|name| {
            command.arg(0).arg(name);
        });
        (self.partition.slot(), command)
    }

    /// Returns the indices in the batch of the visits of `command`.
    pub(in crate::store) fn visits_of(&self, command: &MemberCommand) -> &[usize] {
        &self.visits[command.visits.clone()]
    }

    /// Returns the indices of all visits in the batch.
    pub(in crate::store) fn visits(&self) -> &[usize] {
        &self.visits
    }
}
