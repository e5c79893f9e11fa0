//! Raising the depth of a segment that has too many members.

use ::redis::{cmd, pipe};

use super::segment_sample::SegmentSample;
use crate::domain::Depth;
use crate::store::layout::{KnownLayout, unless_later};
use crate::store::{Error, Layout, Partition, SegmentKey, Store};

/// Replaces the depth `ARGV[3]` of the segment `ARGV[2]` in the hash `KEYS[2]` by `ARGV[4]`, and deletes the levels
/// `KEYS[3]` and following. Redis frees their memory in the background. Keys of another type belong to another program
/// and stay. An empty text stands for no field.
///
/// While a deletion of the segment is in progress, until the Unix time `ARGV[5]`, all levels are needed. If an ACL
/// forbids `TIME`, there is no such time.
///
/// Returns 1, or 0 if the depth is another one now.
const RAISE: &str = unless_later!(
    "\
local depth = redis.call('HGET', KEYS[2], ARGV[2]) or ''
if depth ~= ARGV[3] then return 0 end
if ARGV[5] ~= '' then
  local now = redis.pcall('TIME')
  if now[1] and tonumber(now[1]) < tonumber(ARGV[5]) then return 0 end
end
if ARGV[4] ~= depth then redis.call('HSET', KEYS[2], ARGV[2], ARGV[4]) end
for i = 3, #KEYS do
  if type(redis.pcall('ZCARD', KEYS[i])) == 'number' then redis.call('UNLINK', KEYS[i]) end
end
return 1"
);

impl Store {
    /// Checks in the background whether the segment `name`, which [`Depths::add`](super::Depths::add) has found due,
    /// has more members than its bound, and raises its depth then.
    pub(in crate::store) fn spawn_check(&self, known: &KnownLayout, partition: Partition, name: &str) {
        let (store, layout, name) = (self.clone(), known.layout, Box::<str>::from(name));
        tokio::spawn(async move {
            loop {
                // If it fails, the client has logged it, and the next visits ask for a check again.
                let kept = store.raise_if_full(&layout, partition, &name).await.unwrap_or_default();
                if !store.depths.end_check(partition, &name, kept) {
                    break;
                }
            }
        });
    }

    /// Raises the depth of the segment `name` in `partition` until it has no more members than its bound, unless a
    /// layout later than `layout` is in force. Deletes the levels that are not kept. Returns what [`Self::raise`] does.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    async fn raise_if_full(&self, layout: &Layout, partition: Partition, name: &str) -> Result<Option<u64>, Error> {
        let Some(bound) = partition.bound() else { return Ok(None) };
        let sample = self.segment_sample(partition, name).await?;
        self.raise(layout, partition, name, &sample, sample.depth_within(bound)).await
    }

    /// Raises the depth of the segment `name` in `partition` to `depth`, unless it is higher.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if a layout later than `layout` is in force, or if
    /// the depth changes all the time.
    pub(super) async fn raise_to(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
        depth: Depth,
    ) -> Result<(), Error> {
        for _ in 0..Self::ATTEMPTS {
            let sample = self.segment_sample(partition, name).await?;
            if sample.depth.complete() >= depth {
                return Ok(());
            }
            if self.raise(layout, partition, name, &sample, depth).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Self::SLOT_PAUSE).await;
        }
        Err(Error::LayoutChanged)
    }

    /// Raises the depth of `sample`, of the segment `name`, to `depth`, and deletes the levels that are not kept.
    /// Returns the number of members that remain.
    ///
    /// Returns `None` if it did nothing: another process has changed the depth, a layout later than `layout` is in
    /// force, the slot is migrating, or the segment is being deleted.
    pub(super) async fn raise(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
        sample: &SegmentSample,
        depth: Depth,
    ) -> Result<Option<u64>, Error> {
        let raised = if depth > sample.depth.written() { sample.depth.raised_to(depth) } else { sample.depth };
        // In a slot that is migrating, Redis refuses a script that names a key that doesn't exist.
        let levels: Vec<_> = sample.levels_below(raised.written()).collect();
        let kept = sample.members_from(raised.written());
        if raised == sample.depth && levels.is_empty() {
            return Ok(Some(kept));
        }
        let mut script = cmd("EVAL");
        script.arg(RAISE).arg(2 + levels.len());
        script.arg(self.key_names.layout_of(partition)).arg(self.key_names.depths(partition));
        for level in levels {
            script.arg(self.key_names.segment(SegmentKey { partition, level: Some(level) }, name));
        }
        script.arg(layout.epoch()).arg(name).arg(sample.depth.field()).arg(raised.field());
        script.arg(sample.depth.deletion_deadline().map_or_else(String::new, |deadline| deadline.to_string()));
        let mut pipeline = pipe();
        pipeline.add_command(script);
        if self.scripts_on_many_keys(partition, pipeline).await? != [Some(1)] {
            return Ok(None);
        }
        // A failover may revoke a raise that no replica has yet. The next read of the depths waits for them.
        if !self.acks.is_required() {
            self.depths.learn(partition, name, raised);
        }
        Ok(Some(kept))
    }
}
