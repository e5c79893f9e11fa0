//! Depths during a resharding from one bounded key set to another.

use std::collections::BTreeMap;

use ::redis::{Value, cmd};

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, SegmentName};
use crate::redis::Request;
use crate::store::{Error, KeySet, Layout, Store};

impl Store {
    /// Raises the depths in the key set `new` to those in `old`. Levels that the old key set didn't keep can't be copied.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if another layout is in force, or if the depths change all
    /// the time.
    pub async fn inherit_depths(&self, layout: &Layout, old: KeySet, new: KeySet) -> Result<(), Error> {
        for (name, depth) in self.complete_depths(old).await? {
            for partition in new.all() {
                self.raise_to(layout, partition, &name, depth).await?;
            }
        }
        Ok(())
    }

    /// Returns the depth from which all levels of `segment` are complete in every partition of `keys`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn complete_depth(&self, keys: KeySet, segment: &SegmentName<'_>) -> Result<Depth, Error> {
        let mut complete = Depth::ZERO;
        if keys.max_members().is_none() {
            return Ok(complete);
        }
        let reads = keys.all().map(|partition| {
            let mut read = cmd("HGET");
            read.arg(self.key_names.depths(partition)).arg(segment.as_str());
            (partition.slot(), read)
        });
        for (partition, depth) in keys.all().zip(self.client.send_by_server::<Value>(reads, Request::each).await?) {
            complete = complete.max(self.parse_depth(partition, depth)?.complete());
        }
        Ok(complete)
    }

    /// Returns the depth from which all levels of each segment are complete in every partition of `keys`. Segments that keep
    /// all users are missing.
    async fn complete_depths(&self, keys: KeySet) -> Result<BTreeMap<String, Depth>, Error> {
        let mut complete = BTreeMap::new();
        if keys.max_members().is_none() {
            return Ok(complete);
        }
        let reads = keys.all().map(|partition| {
            let mut read = cmd("HGETALL");
            read.arg(self.key_names.depths(partition));
            (partition.slot(), read)
        });
        for (partition, fields) in keys.all().zip(self.client.send_by_server(reads, Request::each).await?) {
            let fields: Vec<(String, Vec<u8>)> = fields?;
            for (name, text) in fields {
                let depth =
                    SegmentDepth::parse(&text).ok_or_else(|| self.foreign_key(self.key_names.depths(partition)))?;
                let deepest: &mut Depth = complete.entry(name).or_default();
                *deepest = depth.complete().max(*deepest);
            }
        }
        Ok(complete)
    }
}
