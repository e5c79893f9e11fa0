//! Resharding: moving the data set to another key set in steps, while it is used. [`Phase`](crate::store::Phase)
//! defines the steps, and [`layout`](crate::store::layout) explains why no request uses a previous one.

use std::time::Duration;

use ::redis::{Pipeline, pipe};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::{self, Request};
use crate::store::keys::scores_after;
use crate::store::layout::SegmentDeletion;
use crate::store::{Error, KeySet, Layout, Partition, Resharding, SegmentKey, Store};

/// Deletes the record `KEYS[1]` itself. Any other value belongs to another program and stays.
const DELETE_RECORD: &str = unless_later!(
    "\
if is_record then return redis.call('UNLINK', KEYS[1]) end
return 0"
);

/// Deletes the depths `KEYS[2]`. A key of another type belongs to another program and stays.
const DELETE_DEPTHS: &str = unless_later!(
    "\
if type(redis.pcall('HLEN', KEYS[2])) ~= 'number' then return 0 end
return redis.call('UNLINK', KEYS[2])"
);

/// Deletes the tombstones `KEYS[2]`, which have the score 0 and a TTL. Any other key belongs to another program and
/// stays. If an ACL forbids `TTL`, the scores alone decide.
const DELETE_TOMBSTONES: &str = unless_later!(
    "\
local users = redis.pcall('ZCARD', KEYS[2])
if type(users) ~= 'number' then return string.find(users.err, 'WRONGTYPE', 1, true) and 0 or users end
if redis.call('ZCOUNT', KEYS[2], 0, 0) ~= users or redis.pcall('TTL', KEYS[2]) == -1 then return 0 end
return redis.call('UNLINK', KEYS[2])"
);

impl Store {
    /// Reads the layout and records it in every partition, including those of an old key set, which another instance
    /// may still use.
    ///
    /// # Errors
    ///
    /// As [`Store::layout`], and if the server of any partition doesn't answer.
    pub async fn propagate_layout(&self) -> Result<Layout, Error> {
        let layout = self.read_layout().await?.layout;
        for other in self.record_in_partitions(&layout, layout.all()).await {
            if other?.is_some_and(|other| other.order() > layout.order()) {
                return Err(Error::LayoutChanged);
            }
        }
        Ok(layout)
    }

    /// Runs scripts on several keys of `partition` and returns a number for each; `None` while the slot is migrating.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer, or refused one of them.
    pub(in crate::store) async fn scripts_on_many_keys(
        &self,
        partition: Partition,
        pipeline: Pipeline,
    ) -> Result<Vec<Option<i64>>, Error> {
        let request = Request::new(partition.slot(), pipeline).nil_for(redis::Error::is_try_again);
        Ok(self.client.send(request).await?.each().collect::<Result<_, _>>()?)
    }

    /// Takes the step from `layout` to `keys` and `resharding`. When this returns, no request that used `layout` is
    /// answered any more.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; the step may have been taken. [`Error::LayoutChanged`] if another process
    /// changed the layout.
    pub async fn change_layout(
        &self,
        layout: &Layout,
        keys: KeySet,
        resharding: Option<Resharding>,
    ) -> Result<Layout, Error> {
        self.take_step(layout, &layout.next(keys, resharding)).await
    }

    /// Counts the members of `segment` in all partitions of `keys` that were seen after `cutoff`, without confirming
    /// the layout. If its segments are bounded, these are the users of the levels from `depth` on. A key of another
    /// type has none.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn count_in(
        &self,
        keys: KeySet,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
        depth: Depth,
    ) -> Result<u64, Error> {
        let is_counted = |key: &SegmentKey| key.level.is_none_or(|level| depth.keeps(level));
        let counting = keys.segment_keys().filter(is_counted).map(|key| async move {
            let mut pipeline = pipe();
            let name = self.key_names.segment(key, segment.as_str());
            pipeline.cmd("ZCOUNT").arg(name).arg(scores_after(cutoff)).arg("+inf");
            match self.client.send(Request::new(key.partition.slot(), pipeline)).await?.all::<(u64,)>() {
                Err(error) if error.is_wrong_type() => Ok::<_, Error>(0),
                counts => Ok(counts?.0),
            }
        });
        Ok(futures_util::future::try_join_all(counting).await?.into_iter().sum())
    }

    /// Deletes all keys of `keys`, which are unused while `layout` is in force. Returns the number of segments, summed
    /// over the partitions.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; some keys may be deleted. [`Error::LayoutChanged`] if another layout is in
    /// force.
    pub async fn delete_keys(&self, layout: &Layout, keys: KeySet) -> Result<u64, Error> {
        let deleting = stream::iter(keys.all()).map(|partition| self.delete_partition(layout, partition));
        let deleted = deleting.buffer_unordered(Self::DELETE_CONCURRENCY).try_collect::<Vec<_>>().await?;
        Ok(deleted.into_iter().sum())
    }

    /// Number of partitions that are deleted concurrently.
    const DELETE_CONCURRENCY: usize = 8;
    /// Pause between attempts while a slot is migrating.
    pub(in crate::store) const SLOT_PAUSE: Duration = Duration::from_millis(20);

    async fn delete_partition(&self, layout: &Layout, partition: Partition) -> Result<u64, Error> {
        const SOME: usize = 100;
        let record = self.key_names.layout_of(partition);
        let mut deleted = 0;
        loop {
            let page = self.index_of(partition, None, SOME).await?;
            if page.segments.is_empty() {
                break;
            }
            let deletions =
                page.segments.iter().map(|segment| self.segment_deletion(layout, partition, segment, "-inf", None));
            let deletions = deletions.map(|deletion| (partition.slot(), deletion));
            let request = Request::each(deletions).nil_for(redis::Error::is_try_again);
            let before = deleted;
            for answer in self.client.send(request).await?.results() {
                match SegmentDeletion::parse(answer?)? {
                    SegmentDeletion::Deleted { .. } | SegmentDeletion::ForeignKey => deleted += 1,
                    SegmentDeletion::Stale => return Err(Error::LayoutChanged),
                    SegmentDeletion::OtherDepth | SegmentDeletion::Migrating => {}
                }
            }
            if deleted == before {
                tokio::time::sleep(Self::SLOT_PAUSE).await;
            }
        }
        if partition.bound().is_some() {
            // Segments that have no members may have a depth.
            self.delete_unless_later(layout, partition, DELETE_DEPTHS, &[&record, &self.key_names.depths(partition)])
                .await?;
        }
        self.delete_tombstones_of(layout, partition).await?;
        // With one partition, the copy is the record itself, which stays.
        if record != self.key_names.layout() {
            self.delete_unless_later(layout, partition, DELETE_RECORD, &[&record]).await?;
        }
        Ok(deleted)
    }

    /// Deletes the tombstones of `partition`, unless a layout later than `layout` is in force there.
    pub(in crate::store) async fn delete_tombstones_of(
        &self,
        layout: &Layout,
        partition: Partition,
    ) -> Result<(), Error> {
        let keys = [self.key_names.layout_of(partition), self.key_names.tombstones(partition)];
        self.delete_unless_later(layout, partition, DELETE_TOMBSTONES, &[&keys[0], &keys[1]]).await
    }

    /// Runs `script` on `keys` of `partition`. It deletes nothing if a layout later than `layout` is in force there.
    async fn delete_unless_later(
        &self,
        layout: &Layout,
        partition: Partition,
        script: &str,
        keys: &[&str],
    ) -> Result<(), Error> {
        let mut pipeline = pipe();
        pipeline.cmd("EVAL").arg(script).arg(keys.len()).arg(keys).arg(layout.epoch());
        loop {
            match self.scripts_on_many_keys(partition, pipeline.clone()).await?[..] {
                [Some(-1)] => return Err(Error::LayoutChanged),
                [Some(_)] => return Ok(()),
                _ => tokio::time::sleep(Self::SLOT_PAUSE).await,
            }
        }
    }
}
