//! Copying the members to the new keys.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::layout_changed;
use super::{Repartition, RepartitionError};
use crate::commands::progress::{Progress, Unit};
use crate::domain::{Level, SegmentName, Timestamp, Visit};
use crate::store::{self, Batch, KeySet, Layout, SegmentKey};

impl Repartition {
    /// Segments that are copied at a time.
    const CONCURRENCY: usize = 8;
    /// Keys of segments in one request.
    const KEYS_PER_REQUEST: usize = 500;

    /// Copies all members. Returns their number.
    pub(super) async fn copy(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<u64, RepartitionError> {
        let (segments, foreign) = self.segments_of(old).await?;
        let sizes = stream::iter(&segments).map(|(key, segment)| self.store.members_kept(*key, segment));
        let sizes: Vec<u64> = sizes.buffer_unordered(Self::CONCURRENCY).try_collect().await?;
        let (progress, members) =
            (Progress::start(Unit::Items, Some(sizes.iter().sum()), "members"), AtomicU64::new(0));
        progress.println(format_args!("copying from {} to {}", old.in_words(), new.in_words()));
        if foreign > 0 {
            progress.println(format_args!("skipping keys of another type, which `check` names: {foreign}"));
        }
        let on_copied = |copied| {
            let members = members.fetch_add(copied, Ordering::Relaxed) + copied;
            progress.update(members, members);
        };
        let copying =
            stream::iter(&segments).map(|(key, segment)| self.copy_key(layout, new, *key, segment, on_copied));
        copying.buffer_unordered(Self::CONCURRENCY).try_collect::<()>().await?;
        progress.finish();
        Ok(members.into_inner())
    }

    /// Returns the keys of all segments, and the number of keys of another type, which are not moved.
    pub(super) async fn segments_of(
        &self,
        keys: KeySet,
    ) -> Result<(Vec<(SegmentKey, SegmentName<'static>)>, u64), store::Error> {
        let (mut segments, mut foreign) = (Vec::new(), 0);
        for partition in keys.all() {
            let names = self.store.names_of(partition).await?;
            let each: Vec<_> =
                names.iter().flat_map(|name| partition.segment_keys().map(move |key| (key, name))).collect();
            for each in each.chunks(Self::KEYS_PER_REQUEST) {
                // Any command on a sorted set would do. Only its error matters.
                let results = self.store.count_members(partition, each, Timestamp::from_millis(0)).await?;
                for ((key, segment), result) in each.iter().zip(results) {
                    match result {
                        Err(error) if error.is_wrong_type() => foreign += 1,
                        result => {
                            // Most levels of a bounded segment are empty. One key names the segment in any case.
                            if result?.members > 0 || key.level.is_none_or(|level| level == Level::MAX) {
                                segments.push((*key, (*segment).clone()));
                            }
                        }
                    }
                }
            }
        }
        Ok((segments, foreign))
    }

    /// Copies the members of `segment` in `key`. Calls `on_copied` with the size of each page.
    pub(super) async fn copy_key(
        &self,
        layout: &Layout,
        new: KeySet,
        key: SegmentKey,
        segment: &SegmentName<'static>,
        on_copied: impl Fn(u64),
    ) -> Result<(), RepartitionError> {
        let mut cursor = None;
        loop {
            let page = self.store.members(key, segment, cursor.as_ref()).await?;
            let mut batch = Batch::default();
            for (user_id, seen_at) in page.members {
                batch.add(&Visit { user_id, segment: segment.clone(), seen_at });
            }
            self.store.copy(layout, new, &batch).await.map_err(layout_changed)?;
            on_copied(batch.len() as u64);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
