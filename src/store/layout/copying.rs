//! Writing to the new key set of a resharding. Every write is guarded: a process that resumes after a later step writes
//! nothing. Otherwise its last page would bring members back that were deleted since then.

use ::redis::{Cmd, Value, cmd};
use futures_util::future::try_join_all;

use super::KnownLayout;
use crate::domain::{SegmentName, Timestamp, UserId};
use crate::redis::{self, Slot};
use crate::store::batch::PartitionBatch;
use crate::store::{Batch, Error, KeySet, Layout, Partition, Store};

/// Writes the members `ARGV[3..]`, each with its score before it, to the segment `KEYS[2]`, and the name `ARGV[2]` to the
/// index `KEYS[3]`. Returns 0.
const COPY: &str = unless_later!(
    "\
local added = redis.pcall('ZADD', KEYS[2], 'GT', unpack(ARGV, 3))
if type(added) ~= 'number' then return added end
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
        let batches = batch.partition_batches(&self.key_names, keys, &[]);
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
        let copies: Vec<_> = batches
            .iter()
            .flat_map(|of_partition| {
                let names = batch.segment_names();
                of_partition.commands().map(move |(segment, command)| {
                    let partition = of_partition.partition;
                    (partition.slot(), self.guarded_copy(&known.layout, partition, &names[segment], command))
                })
            })
            .collect();
        loop {
            let request = self.writes_to(&partitions, copies.iter().cloned()).nil_for(redis::Error::is_try_again);
            let (answers, is_confirmed) = self.send_writes(request, known).await?;
            if !is_confirmed || answers.contains(&Value::Int(-1)) {
                return Err(Error::LayoutChanged);
            }
            // All are repeated: `GT` makes a copy idempotent.
            if !answers.contains(&Value::Nil) {
                return Ok(());
            }
            tokio::time::sleep(Self::SLOT_PAUSE).await;
        }
    }

    /// Returns a command that runs `write`, a `ZADD GT` to the segment `name` in `partition`, and adds the name to the
    /// index, unless a layout later than `layout` is in force there. Its answer is then -1.
    fn guarded_copy(&self, layout: &Layout, partition: Partition, name: &str, write: &Cmd) -> Cmd {
        let mut script = cmd("EVAL");
        script.arg(COPY).arg(3).arg(self.key_names.layout_of(partition));
        script.arg(self.key_names.segment(partition, name)).arg(self.key_names.index(partition));
        script.arg(layout.epoch()).arg(name);
        Batch::members_of(write).for_each(|word| {
            script.arg(word);
        });
        script
    }

    /// Returns a command that removes `user` from `segment` in `partition`, unless the time of the last visit is no longer
    /// `seen_at`, or a layout later than `layout` is in force there. Its answer is then -1.
    pub(in crate::store) fn guarded_removal(
        &self,
        layout: &Layout,
        partition: Partition,
        user: &UserId<'_>,
        segment: &SegmentName<'_>,
        seen_at: Timestamp,
    ) -> (Slot, Cmd) {
        let mut script = cmd("EVAL");
        script.arg(REMOVE_UNCHANGED).arg(2).arg(self.key_names.layout_of(partition));
        script.arg(self.key_names.segment(partition, segment.as_str()));
        script.arg(layout.epoch()).arg(user.as_str()).arg(seen_at.as_score());
        (partition.slot(), script)
    }
}
