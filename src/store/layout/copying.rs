//! Writing to the new key set of a resharding. Every write is guarded: a process that resumes after a later step writes
//! nothing. Otherwise its last page would bring members back that were deleted since then.

use std::collections::BTreeSet;

use ::redis::{Cmd, Value, cmd};
use futures_util::future::try_join_all;

use super::KnownLayout;
use crate::domain::Timestamp;
use crate::redis;
use crate::store::batch::PartitionBatch;
use crate::store::{Batch, Error, KeySet, Layout, Partition, SegmentKey, Store, UserInSegment};

/// Writes the members `ARGV[3..]`, each with its score before it, to the segment `KEYS[2]`, and the name `ARGV[2]` to the
/// index `KEYS[3]`. Returns 0, or 1 if the segment has another type. Without a record, a later resharding has deleted the
/// key set, and nothing is written either.
const COPY: &str = unless_later!(
    "\
if not is_record then return -1 end
local names = redis.pcall('ZCARD', KEYS[3])
if type(names) ~= 'number' then return names end
local added = redis.pcall('ZADD', KEYS[2], 'GT', unpack(ARGV, 3))
if type(added) ~= 'number' then return string.find(added.err, 'WRONGTYPE', 1, true) and 1 or added end
redis.call('ZADD', KEYS[3], 0, ARGV[2])
return 0"
);

/// Removes the member `ARGV[2]` of the segment `KEYS[2]` if its score is `ARGV[3]`. Returns the number of removed members.
const REMOVE_UNCHANGED: &str = unless_later!(
    "\
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not score or tonumber(score) ~= tonumber(ARGV[3]) then return 0 end
return redis.call('ZREM', KEYS[2], ARGV[2])"
);

impl Store {
    /// Copies `batch` to `keys`, which instances write to as well. Waits for replicas as
    /// [`WriteAcks`](crate::redis::WriteAcks) requires.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a visit is not acknowledged; any may have been written. [`Error::LayoutChanged`] if `layout` is
    /// no longer in force. If a later one was in force before the call, nothing was written.
    pub async fn copy(&self, layout: &Layout, keys: KeySet, batch: &Batch) -> Result<(), Error> {
        let known = &KnownLayout::new(*layout);
        self.watch_depths(known);
        let batches = batch.partition_batches(&self.key_names, keys, &[], &self.depths);
        let batches = self.client.group_by_server(batches, |batch| batch.partition.slot()).await?;
        try_join_all(batches.into_iter().map(|batches| self.copy_to_server(batch, batches, known))).await?;
        Ok(())
    }

    /// Copies `batches`, which are parts of `batch` on one server.
    async fn copy_to_server(
        &self,
        batch: &Batch,
        batches: Vec<PartitionBatch>,
        known: &KnownLayout,
    ) -> Result<(), Error> {
        let partitions: Vec<_> = batches.iter().map(|batch| batch.partition).collect();
        let names = batch.segment_names();
        let (mut places, mut copies) = (Vec::new(), Vec::new());
        for of_partition in &batches {
            let partition = of_partition.partition;
            for (segment, key, command) in of_partition.commands() {
                places.push((key, segment));
                copies.push((partition.slot(), self.guarded_copy(&known.layout, key, &names[segment], command)));
            }
        }
        loop {
            let request = self.writes_to(&partitions, copies.iter().cloned()).nil_for(redis::Error::is_try_again);
            let (answers, is_confirmed) = self.send_writes(request, known).await?;
            if !is_confirmed || answers.contains(&Value::Int(-1)) {
                return Err(Error::LayoutChanged);
            }
            if let Some(index) = answers.iter().position(|answer| *answer == Value::Int(1)) {
                let (key, segment) = places[index];
                return Err(self.foreign_key(self.key_names.segment(key, &names[segment])));
            }
            // All are repeated: `GT` makes a copy idempotent.
            if !answers.contains(&Value::Nil) {
                self.check_copied(&batches, names, known);
                return Ok(());
            }
            tokio::time::sleep(Self::SLOT_PAUSE).await;
        }
    }

    /// Checks in the background whether bounded segments of `batches`, whose members were copied, have too many.
    fn check_copied(&self, batches: &[PartitionBatch], names: &[Box<str>], known: &KnownLayout) {
        for of_partition in batches {
            for command in &of_partition.member_commands {
                let copied = u32::try_from(of_partition.visits_of(command).len()).unwrap_or(u32::MAX);
                if self.depths.add(of_partition.partition, &names[command.segment], copied) {
                    self.spawn_check(known, of_partition.partition, &names[command.segment]);
                }
            }
        }
    }

    /// Returns a command that runs `write`, a `ZADD GT` to the segment `name` in `key`, and adds the name to the
    /// index, unless a layout later than `layout` is in force there. Its answer is then -1.
    fn guarded_copy(&self, layout: &Layout, key: SegmentKey, name: &str, write: &Cmd) -> Cmd {
        let mut script = cmd("EVAL");
        script.arg(COPY).arg(3).arg(self.key_names.layout_of(key.partition));
        script.arg(self.key_names.segment(key, name)).arg(self.key_names.index(key.partition));
        script.arg(layout.epoch()).arg(name);
        Batch::members_of(write).for_each(|word| {
            script.arg(word);
        });
        script
    }

    /// Removes each of `removals`: a user from a segment, in the partition, unless the time of the last visit is no longer
    /// this one. Waits for replicas as [`Self::copy`] does. A removal in a slot that is migrating is left out.
    ///
    /// # Errors
    ///
    /// As [`Self::copy`].
    pub(in crate::store) async fn remove_unchanged(
        &self,
        removals: Vec<(Partition, &UserInSegment, Timestamp)>,
        known: &KnownLayout,
    ) -> Result<(), Error> {
        for removals in self.client.group_by_server(removals, |(partition, ..)| partition.slot()).await? {
            let partitions: BTreeSet<_> = removals.iter().map(|(partition, ..)| *partition).collect();
            let partitions: Vec<_> = partitions.into_iter().collect();
            let commands = removals.into_iter().map(|(partition, (user, segment), seen_at)| {
                let mut script = cmd("EVAL");
                script.arg(REMOVE_UNCHANGED).arg(2).arg(self.key_names.layout_of(partition));
                script.arg(self.key_names.segment(partition.key_of(user.as_str()), segment.as_str()));
                script.arg(known.layout.epoch()).arg(user.as_str()).arg(seen_at.as_score());
                (partition.slot(), script)
            });
            let request = self.writes_to(&partitions, commands).nil_for(redis::Error::is_try_again);
            let (answers, is_confirmed) = self.send_writes(request, known).await?;
            if !is_confirmed || answers.contains(&Value::Int(-1)) {
                return Err(Error::LayoutChanged);
            }
        }
        Ok(())
    }
}
