//! Finding foreign keys that a resharding would overwrite or delete.
//!
//! A resharding can't be undone after it has begun. A foreign key would stop it halfway, and would make every deletion
//! of a user fail. Therefore the keys are checked before the layout changes.
//!
//! Keys may be left from an earlier resharding, because an instance that was suspended may write to old keys after they
//! were deleted. They differ from foreign keys in form. A leftover index contains valid names with the score 0, among
//! them that of every leftover segment. Leftover depths are a hash of valid texts. Tombstones have the score 0 and a
//! TTL, which one script sets. Before the first resharding is complete, no keys are left over.

use std::collections::BTreeSet;

use ::redis::{FromRedisValue, Value, cmd, pipe};

use super::Layout;
use crate::domain::SegmentName;
use crate::redis::{self, Request, parse};
use crate::store::keys::KeyKind;
use crate::store::sampling::segment_depth::SegmentDepth;
use crate::store::{Error, KeySet, Partition, SegmentKey, Store};

impl Store {
    /// Number of steps of a resharding. Each increments the epoch.
    const RESHARDING_STEPS: u64 = 4;

    /// Returns a foreign key that a resharding from `layout` to the key set `to` would overwrite or delete; `None` if
    /// there is none. If an ACL forbids `SCAN`, the keys of segments are not checked. If it forbids `TTL`, tombstones
    /// are recognized by their scores alone.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn find_conflicting_key(&self, layout: &Layout, to: KeySet) -> Result<Option<String>, Error> {
        let may_have_leftovers = layout.epoch() > Self::RESHARDING_STEPS;
        for partition in to.all() {
            if let Some(key) = self.foreign_key_of(partition, may_have_leftovers).await? {
                return Ok(Some(key));
            }
        }
        let mut names = BTreeSet::new();
        for partition in layout.keys().all() {
            names.extend(self.names_of(partition).await?);
        }
        // The scan is complete, because an operator waits for it and not a request.
        for own in self.own_keys(usize::MAX, |_| false).await?.keys {
            let (level, name) = match own.kind {
                KeyKind::Segment(name) if to.max_members().is_none() => (None, name),
                KeyKind::SegmentLevel(level, name) if to.max_members().is_some() => (Some(level), name),
                _ => continue,
            };
            if let Ok(name) = SegmentName::parse(name)
                && to.has(own.partition)
                && names.contains(&name)
                && self.is_foreign_segment(SegmentKey { partition: own.partition, level }, &name).await?
            {
                return Ok(Some(own.key));
            }
        }
        Ok(None)
    }

    /// Returns the key of the record, the index, the depths or the tombstones of `partition` if it is foreign.
    async fn foreign_key_of(&self, partition: Partition, may_have_leftovers: bool) -> Result<Option<String>, Error> {
        let [record, index, tombstones] = [
            self.key_names.layout_of(partition),
            self.key_names.index(partition),
            self.key_names.tombstones(partition),
        ];
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(&record);
        pipeline.cmd("TTL").arg(&tombstones);
        for key in [&index, &tombstones] {
            pipeline.cmd("ZCARD").arg(key);
            pipeline.cmd("ZCOUNT").arg(key).arg(0).arg(0);
        }
        let results = self.client.send(Request::new(partition.slot(), pipeline).probe()).await?.results();
        let [found_record, ttl, names, unscored_names, users, unscored_users] =
            <[_; 6]>::try_from(results).expect("each command has a result");

        let found_record = or_foreign::<Option<Vec<u8>>>(found_record)?;
        let has_record = match found_record {
            Some(None) => false,
            Some(Some(found)) if Layout::read_record(&found).is_ok() => true,
            _ => return Ok(Some(record)),
        };
        let may_be_left = may_have_leftovers || has_record;
        let is_left = |members: Option<u64>, unscored: Option<u64>| match members {
            Some(0) => true,
            members => may_be_left && members.is_some() && members == unscored,
        };

        let names = or_foreign::<u64>(names)?;
        if !is_left(names, or_foreign(unscored_names)?)
            || names.is_some_and(|names| names > 0) && names != Some(self.names_of(partition).await?.len() as u64)
        {
            return Ok(Some(index));
        }
        let has_ttl = match ttl.and_then(parse::<i64>) {
            Err(error) if error.is_refused_command() => true,
            ttl => ttl? != -1,
        };
        if !is_left(or_foreign(users)?, or_foreign(unscored_users)?) || !has_ttl {
            return Ok(Some(tombstones));
        }
        self.foreign_depths(partition, may_be_left).await
    }

    /// Returns the key of the depths of `partition` if it is foreign. An exact key set has no depths.
    async fn foreign_depths(&self, partition: Partition, may_be_left: bool) -> Result<Option<String>, Error> {
        if partition.bound().is_none() {
            return Ok(None);
        }
        let key = self.key_names.depths(partition);
        let mut pipeline = pipe();
        pipeline.cmd("HGETALL").arg(&key);
        let mut results = self.client.send(Request::new(partition.slot(), pipeline).probe()).await?.results();
        let fields = or_foreign::<Vec<(Vec<u8>, Vec<u8>)>>(results.pop().expect("the command has a result"))?;
        let is_left = fields.is_some_and(|fields| {
            let is_depth = |(name, text): &(Vec<u8>, Vec<u8>)| {
                let is_name = std::str::from_utf8(name).is_ok_and(|name| SegmentName::parse(name).is_ok());
                is_name && SegmentDepth::parse(text).is_some()
            };
            fields.is_empty() || may_be_left && fields.iter().all(is_depth)
        });
        Ok((!is_left).then_some(key))
    }

    /// Returns whether the key `key` of a segment exists, but has another type or is missing from the index.
    async fn is_foreign_segment(&self, key: SegmentKey, name: &SegmentName<'_>) -> Result<bool, Error> {
        let partition = key.partition;
        let mut members = cmd("ZCARD");
        members.arg(self.key_names.segment(key, name.as_str()));
        let mut name_score = cmd("ZSCORE");
        name_score.arg(self.key_names.index(partition)).arg(name.as_str());
        let request = Request::each([members, name_score].map(|command| (partition.slot(), command))).probe();
        let [members, name_score] =
            <[_; 2]>::try_from(self.client.send(request).await?.results()).expect("each command has a result");
        Ok(match or_foreign::<u64>(members)? {
            // The key was deleted in the meantime.
            Some(0) => false,
            Some(_) => parse::<Option<f64>>(name_score?)?.is_none(),
            None => true,
        })
    }
}

/// Returns the value; `None` if the key has another type.
fn or_foreign<T: FromRedisValue>(result: Result<Value, redis::Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_wrong_type() => Ok(None),
        result => Ok(Some(parse(result?)?)),
    }
}
