//! Moving the data set to other keys, step by step, while it is used. What the steps mean stands at [`Phase`](super::Phase), and
//! why nobody goes by one that is over at [`layout`](super::layout).

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::{Value, pipe};

use super::batch::Batch;
use super::keys::{Keyspace, Partition, Slot};
use super::layout::{Attempt, KnownLayout, LAYOUT_KEY, Layout};
use super::{Error, Move, Store, after};
use crate::segment::SegmentName;
use crate::time::Timestamp;

/// Replaces the record `ARGV[1]` by `ARGV[2]`.
const REPLACE_RECORD: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1";

/// Deletes the segment `KEYS[1]` and its name `ARGV[1]` in the index `KEYS[2]`, at once: a member that is written meanwhile is
/// either gone with it, or has its name written behind. The server frees the memory beside its other work.
const DELETE_SEGMENT: &str = "\
redis.call('UNLINK', KEYS[1])
return redis.call('ZREM', KEYS[2], ARGV[1])";

impl Store {
    /// The layout as it is recorded now, which every partition has when this returns.
    ///
    /// # Errors
    ///
    /// As [`Store::layout`].
    pub async fn settled_layout(&self) -> Result<Layout, Error> {
        Ok(self.read_layout().await?.layout.clone())
    }

    /// Puts `layout` one step on: from now on the keys are `keys`, and `moving` is under way. When this returns, nobody gets an
    /// answer any more that goes by `layout`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer; the step may have been taken. [`Error::UnknownLayout`] when somebody else has changed
    /// the layout.
    pub async fn change_layout(&self, layout: &Layout, keys: Keyspace, moving: Option<Move>) -> Result<Layout, Error> {
        let next = layout.next(keys, moving);
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(REPLACE_RECORD).arg(1).arg(LAYOUT_KEY);
        script.arg(layout.record()).arg(next.record());
        let (_,): (Value,) = self.connection.query(Slot::of_key(LAYOUT_KEY), pipeline).await?;
        // Somebody may have taken the same step, or our own attempt before this one has.
        let settled = self.settled_layout().await?;
        if settled == next { Ok(settled) } else { Err(Error::UnknownLayout) }
    }

    /// Writes `batch` to `keys`, which are being written to by the way already, and says how it went.
    ///
    /// # Errors
    ///
    /// An [`Error`] when one of the visits is not acknowledged; any may have been written. [`Error::UnknownLayout`] when `layout` is
    /// not in force any more.
    pub async fn copy(&self, layout: &Layout, keys: Keyspace, batch: &Batch) -> Result<(), Error> {
        let known = KnownLayout::new(layout.clone());
        match batch.write_to([keys], &known, self, &self.batches).await {
            Attempt::Done(written) => written.into_result(),
            Attempt::Outdated => Err(Error::UnknownLayout),
        }
    }

    /// How many members `segment` has in all partitions of `keys` that were seen after `cutoff`, whoever goes by these keys.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn count_in(&self, keys: Keyspace, segment: &SegmentName<'_>, cutoff: Timestamp) -> Result<u64, Error> {
        let counting = keys.all().map(|partition| async move {
            let mut pipeline = pipe();
            let key = partition.segment_key(segment.as_str());
            pipeline.cmd("ZCOUNT").arg(key).arg(after(cutoff)).arg("+inf");
            let (count,): (u64,) = self.connection.query(partition.slot(), pipeline).await?;
            Ok::<_, Error>(count)
        });
        Ok(futures_util::future::try_join_all(counting).await?.into_iter().sum())
    }

    /// Deletes all keys of `keys`, which nobody must go by. Says how many segments there were, each counted once for each
    /// partition.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer; some may be deleted.
    pub async fn delete_keys(&self, keys: Keyspace) -> Result<u64, Error> {
        let deleting = stream::iter(keys.all()).map(|partition| self.delete_partition(partition));
        let deleted = deleting.buffer_unordered(Self::DELETIONS).try_collect::<Vec<_>>().await?;
        Ok(deleted.into_iter().sum())
    }

    /// Partitions that are deleted at once.
    const DELETIONS: usize = 8;

    async fn delete_partition(&self, partition: Partition) -> Result<u64, Error> {
        const SOME: usize = 100;
        let mut deleted = 0;
        loop {
            let page = self.index_of(partition, None, SOME).await?;
            if page.segments.is_empty() {
                break;
            }
            let mut pipeline = pipe();
            for segment in &page.segments {
                let script =
                    pipeline.cmd("EVAL").arg(DELETE_SEGMENT).arg(2).arg(partition.segment_key(segment.as_str()));
                script.arg(partition.index_key()).arg(segment.as_str());
            }
            self.connection.query::<Value>(partition.slot(), pipeline).await?;
            deleted += page.segments.len() as u64;
        }
        // What stands for one partition stands for all.
        if partition.layout_key() != LAYOUT_KEY {
            let mut pipeline = pipe();
            pipeline.cmd("UNLINK").arg(partition.layout_key());
            self.connection.query::<Value>(partition.slot(), pipeline).await?;
        }
        Ok(deleted)
    }
}
