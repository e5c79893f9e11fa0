//! Looking for keys that a move would overwrite or delete, and that no move of this data set has written.
//!
//! A move that has begun can't be taken back. A foreign key would stop it halfway, and every deletion of a user with it. So the keys are
//! looked at before the layout changes.
//!
//! Keys may be left from an earlier move, since an instance that was suspended may write to old keys after they were deleted. Their form
//! tells them apart: a leftover index has names of segments with the score 0 and names every leftover segment, and tombstones have the
//! score 0 and a TTL, which one script gives them. Before the first move is over, nothing is left from an earlier one.

use std::collections::BTreeSet;

use ::redis::{FromRedisValue, Value, cmd, pipe};

use super::Layout;
use crate::domain::SegmentName;
use crate::redis::{self, Request, parse};
use crate::store::keys::KeyKind;
use crate::store::{Error, KeySet, Partition, Store};

impl Store {
    /// The steps of a move, each of which raises the epoch by one.
    const STEPS_OF_A_MOVE: u64 = 4;

    /// Returns a key that a move from `layout` to the keys `to` would overwrite or delete, and that no move of this data set has
    /// written. Where an ACL forbids `SCAN`, keys of segments are not looked for, and where it forbids `TTL`, tombstones are known by
    /// their scores alone.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn foreign_key_in_the_way(&self, layout: &Layout, to: KeySet) -> Result<Option<String>, Error> {
        let was_moved = layout.epoch() > Self::STEPS_OF_A_MOVE;
        for partition in to.all() {
            if let Some(key) = self.foreign_key_of(partition, was_moved).await? {
                return Ok(Some(key));
            }
        }
        let mut names = BTreeSet::new();
        for partition in layout.keys().all() {
            names.extend(self.names_of(partition).await?);
        }
        // An operator waits.
        for own in self.own_keys(usize::MAX, |_| false).await?.keys {
            if let KeyKind::Segment(name) = own.kind
                && let Ok(name) = SegmentName::parse(name)
                && to.has(own.partition)
                && names.contains(&name)
                && self.is_foreign_segment(own.partition, &name).await?
            {
                return Ok(Some(own.key));
            }
        }
        Ok(None)
    }

    /// Returns a foreign key in the place of the record, the index or the tombstones of `partition`.
    async fn foreign_key_of(&self, partition: Partition, was_moved: bool) -> Result<Option<String>, Error> {
        let [record, index, tombstones] =
            [self.names.layout_of(partition), self.names.index(partition), self.names.tombstones(partition)];
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
        let may_be_left = was_moved || has_record;
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
        Ok(None)
    }

    /// Returns whether the key of a segment in `partition` exists, and is no sorted set or not named by the index there.
    async fn is_foreign_segment(&self, partition: Partition, name: &SegmentName<'_>) -> Result<bool, Error> {
        let mut members = cmd("ZCARD");
        members.arg(self.names.segment(partition, name.as_str()));
        let mut named = cmd("ZSCORE");
        named.arg(self.names.index(partition)).arg(name.as_str());
        let request = Request::each([members, named].map(|command| (partition.slot(), command))).probe();
        let [members, named] =
            <[_; 2]>::try_from(self.client.send(request).await?.results()).expect("each command has a result");
        Ok(match or_foreign::<u64>(members)? {
            // It went in the meantime.
            Some(0) => false,
            Some(_) => parse::<Option<f64>>(named?)?.is_none(),
            None => true,
        })
    }
}

/// Returns the value, or nothing if the key is of another type.
fn or_foreign<T: FromRedisValue>(result: Result<Value, redis::Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_wrong_type() => Ok(None),
        result => Ok(Some(parse(result?)?)),
    }
}
