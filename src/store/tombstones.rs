//! Tombstones of users and segments that were deleted during a resharding.
//!
//! A copy from the old to the new key set may be in flight when a user or a segment is deleted from both, and would add
//! members again. Therefore [`Store::delete_user`], [`Store::remove_user`] and [`Store::delete_segment`] first add a
//! tombstone beside the new key set: that of a user to the user's partition, that of a segment to every partition. When
//! all members are copied, [`Store::reconcile`] makes the new key set agree with the old one for each user and each
//! segment with a tombstone. No copy is in flight for tombstones that are added later. Tombstones are deleted after the
//! resharding, or expire after a window.

use std::time::Duration;

use ::redis::{Value, cmd, pipe};

use super::layout::{Attempt, KnownLayout};
use super::{Error, KeySet, Layout, Partition, Store};
use crate::domain::{SegmentName, UserId};
use crate::redis::Request;

/// Adds the member `ARGV[1]` to the tombstones `KEYS[1]`, which expire after `ARGV[2]` seconds. Returns nil if the key
/// has another type, or a member with a score other than 0. Such a key belongs to another program and stays as it is.
const ADD_TOMBSTONE: &str = "\
local known = redis.pcall('ZCARD', KEYS[1])
if type(known) ~= 'number' then return not string.find(known.err, 'WRONGTYPE', 1, true) and known end
if redis.call('ZCOUNT', KEYS[1], 0, 0) ~= known then return false end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])";

/// A user or a segment that was deleted during a resharding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tombstone<'a> {
    /// The user was deleted, or removed from a segment.
    User(UserId<'a>),
    /// The segment was deleted.
    Segment(SegmentName<'a>),
}

/// A page of tombstones.
#[derive(Debug)]
pub struct TombstonesPage {
    /// The tombstones. Members that are neither a user nor a segment are skipped.
    pub tombstones: Vec<Tombstone<'static>>,
    /// The last member; `None` on the last page.
    pub next: Option<String>,
}

impl Tombstone<'_> {
    /// Returns the member: the user's id, or a space and the segment's name. No id begins with a space.
    fn to_member(&self) -> String {
        match self {
            Self::User(user) => user.as_str().to_owned(),
            Self::Segment(segment) => format!(" {segment}"),
        }
    }

    fn parse(member: String) -> Option<Tombstone<'static>> {
        match member.strip_prefix(' ') {
            Some(name) => SegmentName::parse(name.to_owned()).map(Tombstone::Segment).ok(),
            None => UserId::parse(member).map(Tombstone::User).ok(),
        }
    }
}

impl Store {
    /// Adds `tombstone` to `partitions`, which belong to the new key set.
    pub(super) async fn add_tombstones(
        &self,
        tombstone: &Tombstone<'_>,
        partitions: Vec<Partition>,
        retention: Duration,
        known: &KnownLayout,
    ) -> Result<Attempt<()>, Error> {
        for partitions in self.chunks_by_server(partitions).await? {
            let commands = partitions.iter().map(|partition| {
                let mut add = cmd("EVAL");
                add.arg(ADD_TOMBSTONE).arg(1).arg(self.key_names.tombstones(*partition));
                add.arg(tombstone.to_member()).arg(retention.as_secs());
                (partition.slot(), add)
            });
            let (answers, is_confirmed) = self.send_writes(self.writes_to(&partitions, commands), known).await?;
            if !is_confirmed {
                return Ok(Attempt::Stale);
            }
            if let Some((partition, _)) = partitions.iter().zip(answers).find(|(_, answer)| *answer == Value::Nil) {
                return Err(self.foreign_key(self.key_names.tombstones(*partition)));
            }
        }
        Ok(Attempt::Committed(()))
    }

    /// Returns up to `limit` tombstones in `partition` after the member `after`, in order of the members' bytes.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn tombstones_of(
        &self,
        partition: Partition,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TombstonesPage, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |member| format!("({member}"));
        let mut pipeline = pipe();
        let range = pipeline.cmd("ZRANGE").arg(self.key_names.tombstones(partition)).arg(from).arg("+");
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let (members,): (Vec<String>,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        let next = members.last().cloned().filter(|_| members.len() == limit);
        Ok(TombstonesPage { tombstones: members.into_iter().filter_map(Tombstone::parse).collect(), next })
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
