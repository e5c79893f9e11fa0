//! Tombstones of users who were deleted during a resharding.
//!
//! A copy from the old to the new key set may be in flight when the user is deleted from both, and would add the member
//! again. Therefore [`Store::delete_user`] and [`Store::remove_user`] first add a tombstone beside the new key set. When
//! all members are copied, [`Store::reconcile_user`] makes the new key set agree with the old one for each user with a
//! tombstone. No copy is in flight for tombstones that are added later. Tombstones are deleted after the resharding, or
//! expire after a window.

use std::collections::BTreeSet;
use std::time::Duration;

use ::redis::{Value, cmd, pipe};

use super::deletion::REMOVE_UNLESS_LATER;
use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::{Batch, Error, KeySet, Layout, Partition, Store};
use crate::domain::{UserId, Visit};
use crate::redis::Request;

/// Adds the user `ARGV[1]` to the tombstones `KEYS[1]`, which expire after `ARGV[2]` seconds. Returns nil if the key
/// has another type, or a member with a score other than 0. Such a key belongs to another program and stays as it is.
const ADD_TOMBSTONE: &str = "\
local users = redis.pcall('ZCARD', KEYS[1])
if type(users) ~= 'number' then return not string.find(users.err, 'WRONGTYPE', 1, true) and users end
if redis.call('ZCOUNT', KEYS[1], 0, 0) ~= users then return false end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])";

impl Store {
    /// Adds a tombstone of `user` to `partition`, which belongs to the new key set.
    pub(super) async fn add_tombstone(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        retention: Duration,
        known: &KnownLayout,
    ) -> Result<Attempt<()>, Error> {
        let key = self.key_names.tombstones(partition);
        let mut add = cmd("EVAL");
        add.arg(ADD_TOMBSTONE).arg(1).arg(&key).arg(user.as_str()).arg(retention.as_secs());
        let (answers, is_confirmed) = self.write_in([partition], [(partition.slot(), add)], known).await?;
        if !is_confirmed {
            return Ok(Attempt::Stale);
        }
        if answers.contains(&Value::Nil) {
            return Err(self.foreign_key(key));
        }
        Ok(Attempt::Committed(()))
    }

    /// Returns up to `limit` users with a tombstone in `partition` after the user `after`, in order of their ids'
    /// bytes.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn tombstones_of(
        &self,
        partition: Partition,
        after: Option<&UserId<'_>>,
        limit: usize,
    ) -> Result<Vec<UserId<'static>>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |user| format!("({}", user.as_str()));
        let mut pipeline = pipe();
        let range = pipeline.cmd("ZRANGE").arg(self.key_names.tombstones(partition)).arg(from).arg("+");
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let (users,): (Vec<String>,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(users.into_iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    /// Makes the segments of `user` in the key set `new` agree with those in `old`, while visits are written to both
    /// and counts read `old`.
    ///
    /// Returns whether it changed anything. If so, the caller must repeat the call: a change may have removed a visit
    /// that was written in the meantime.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if `layout` is no longer in force.
    pub async fn reconcile_user(
        &self,
        layout: &Layout,
        old: KeySet,
        new: KeySet,
        user: &UserId<'_>,
    ) -> Result<bool, Error> {
        let known = KnownLayout::new(*layout);
        let [old, target] = [old, new].map(|keys| keys.of(hash(user.as_str())));
        let mut segments = BTreeSet::new();
        for partition in [old, target] {
            segments.extend(self.names_of(partition).await?);
        }
        let segments: Vec<_> = segments.into_iter().collect();
        let (mut missing, mut is_changed) = (Batch::default(), false);
        for segments in segments.chunks(Self::SEGMENTS_PER_REQUEST) {
            // The old key set is read first. If it lacks a member, no visit acknowledged before wrote it, so the new
            // key set may lose it. A visit acknowledged since then is in the old key set, and the next call copies it.
            let mut scores = Vec::new();
            for partition in [old, target] {
                let pairs = segments.iter().map(|segment| (user, segment));
                let Attempt::Committed(found) = self.scores_in(partition, pairs, &known).await? else {
                    return Err(Error::LayoutChanged);
                };
                scores.push(found);
            }
            let [expected, actual] = <[_; 2]>::try_from(scores).expect("there are two partitions");
            let mut removals = pipe();
            for ((segment, expected), actual) in segments.iter().zip(expected).zip(actual) {
                if expected == actual {
                    continue;
                }
                is_changed = true;
                if let Some(actual) = actual.filter(|actual| expected.is_none_or(|expected| expected < *actual)) {
                    let script = removals.cmd("EVAL").arg(REMOVE_UNLESS_LATER).arg(1);
                    script
                        .arg(self.key_names.segment(target, segment.as_str()))
                        .arg(user.as_str())
                        .arg(actual.as_score());
                }
                if let Some(seen_at) = expected {
                    missing.add(&Visit { user_id: user.clone(), segment: segment.clone(), seen_at });
                }
            }
            if !removals.is_empty() {
                self.client.send(Request::new(target.slot(), removals)).await?.all::<Vec<u64>>()?;
            }
        }
        if !missing.is_empty() {
            self.copy(layout, new, &missing).await?;
        }
        Ok(is_changed)
    }

    /// Deletes the tombstones of `keys`. While `layout` is in force, no instance adds one.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if another layout is in force.
    pub async fn delete_tombstones(&self, layout: &Layout, keys: KeySet) -> Result<(), Error> {
        for partition in keys.all() {
            self.delete_tombstones_of(layout, partition).await?;
        }
        Ok(())
    }
}
