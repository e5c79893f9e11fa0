//! The deletion of a user, from all segments or from one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};

use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::tombstones::Tombstone;
use super::{Error, Partition, Phase, Resharding, Store};
use crate::domain::{SegmentName, Timestamp, UserId};
use crate::redis::{self, Request, Slot, parse};

/// Removes the member `ARGV[1]` of the segment `KEYS[1]` unless its score is later than `ARGV[2]`. Returns nil for a key of
/// another type, which Redis 6.2 reports as an error of the script.
const REMOVE_UNLESS_LATER: &str = "\
local score = redis.pcall('ZSCORE', KEYS[1], ARGV[1])
if type(score) == 'table' then return not string.find(score.err, 'WRONGTYPE', 1, true) and score end
if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])";

impl Store {
    /// Removes `user` from all segments and returns their number. It includes segments whose member has expired but is
    /// not pruned yet. Waits for replicas as [`WriteAcks`](crate::redis::WriteAcks) requires.
    ///
    /// Visits that were acknowledged before the call are deleted; visits that are recorded during the call may remain.
    /// A tombstone, if one is needed, expires after `retention`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't acknowledge every removal. The user may have been removed from any segment.
    pub async fn delete_user(&self, user: &UserId<'_>, retention: Duration) -> Result<u64, Error> {
        // A stale attempt has removed the user from some segments already.
        let removed = Mutex::new(BTreeSet::new());
        let removed_from = |segment: SegmentName<'static>| {
            removed.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
        };
        let removed_from = &removed_from;
        let remove = |partition, known: Arc<KnownLayout>| async move {
            self.remove_from_all(partition, user, &known, removed_from).await
        };
        self.remove_from_key_sets(user, retention, remove).await?;
        Ok(removed.into_inner().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    /// Removes `user` from `segment`, unless the user was seen there after `removed_at`. Returns whether a member was
    /// removed, expired or not. Otherwise as [`Self::delete_user`].
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't acknowledge the removal, which may have been done. [`Error::ForeignKey`] if the
    /// segment's key holds a value of another program, which stays as it is.
    pub async fn remove_user(
        &self,
        user: &UserId<'_>,
        segment: &SegmentName<'_>,
        removed_at: Option<Timestamp>,
        retention: Duration,
    ) -> Result<bool, Error> {
        // A stale attempt may have removed the user already. During a resharding, so may the first of two key sets.
        let is_removed = &AtomicBool::new(false);
        let remove = |partition: Partition, known: Arc<KnownLayout>| async move {
            let key = self.key_names.segment(partition.key_of(user.as_str()), segment.as_str());
            let command = match removed_at {
                None => cmd("ZREM").arg(&key).arg(user.as_str()).to_owned(),
                Some(at) => {
                    let mut script = cmd("EVAL");
                    script.arg(REMOVE_UNLESS_LATER).arg(1).arg(&key).arg(user.as_str()).arg(at.as_score());
                    script
                }
            };
            let (answers, is_confirmed) = self.write_in(partition, [command], &known).await?;
            if let [Value::Int(1)] = answers[..] {
                is_removed.store(true, Ordering::Relaxed);
            }
            match answers[..] {
                _ if !is_confirmed => Ok(Attempt::Stale),
                [Value::Nil] => Err(self.foreign_key(key)),
                _ => Ok(Attempt::Committed(())),
            }
        };
        self.remove_from_key_sets(user, retention, remove).await?;
        Ok(is_removed.load(Ordering::Relaxed))
    }

    /// Runs `remove` on the partition of `user` in each key set that visits are written to. Adds a tombstone before, if
    /// one is needed.
    async fn remove_from_key_sets<F>(
        &self,
        user: &UserId<'_>,
        retention: Duration,
        remove: impl Fn(Partition, Arc<KnownLayout>) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Attempt<()>, Error>>,
    {
        let remove = &remove;
        self.with_layout(|known| async move {
            if let Some(Resharding { to, phase: Phase::Backfill }) = known.layout.resharding() {
                let partitions = vec![to.of(hash(user.as_str()))];
                let tombstone = Tombstone::User(user.clone());
                if let Attempt::Stale = self.add_tombstones(&tombstone, partitions, retention, &known).await? {
                    return Ok(Attempt::Stale);
                }
            }
            for keys in known.layout.deleted_from() {
                let partition = keys.of(hash(user.as_str()));
                if let Attempt::Stale = remove(partition, Arc::clone(&known)).await? {
                    return Ok(Attempt::Stale);
                }
            }
            Ok(Attempt::Committed(()))
        })
        .await
    }

    /// Removes `user` from all segments in `partition`, and calls `removed_from` for each that contained the user.
    async fn remove_from_all(
        &self,
        partition: Partition,
        user: &UserId<'_>,
        known: &KnownLayout,
        removed_from: impl Fn(SegmentName<'static>),
    ) -> Result<Attempt<()>, Error> {
        let mut cursor = None;
        loop {
            let page = self.index_of(partition, cursor.as_ref(), Self::SEGMENTS_PER_REQUEST).await?;
            let commands = page.segments.iter().map(|segment| {
                let mut command = cmd("ZREM");
                command
                    .arg(self.key_names.segment(partition.key_of(user.as_str()), segment.as_str()))
                    .arg(user.as_str());
                command
            });
            let (removals, is_confirmed) = self.write_in(partition, commands, known).await?;
            for (segment, removal) in page.segments.into_iter().zip(removals) {
                if parse::<Option<u64>>(removal)?.is_some_and(|removed| removed > 0) {
                    removed_from(segment);
                }
            }
            cursor = page.next;
            if !is_confirmed {
                return Ok(Attempt::Stale);
            }
            if cursor.is_none() {
                return Ok(Attempt::Committed(()));
            }
        }
    }

    /// Writes with `commands` to `partition`, and waits for replicas if required. Returns the answers, nil for a key of
    /// another type, and whether `known` was in force.
    async fn write_in(
        &self,
        partition: Partition,
        commands: impl IntoIterator<Item = Cmd>,
        known: &KnownLayout,
    ) -> Result<(Vec<Value>, bool), Error> {
        let commands = commands.into_iter().map(|command| (partition.slot(), command));
        self.send_writes(self.writes_to(&[partition], commands).nil_for(redis::Error::is_wrong_type), known).await
    }

    /// Returns a request that writes with `commands` to `partitions`, which are on one server, and waits for replicas if
    /// required.
    pub(super) fn writes_to(
        &self,
        partitions: &[Partition],
        commands: impl IntoIterator<Item = (Slot, Cmd)>,
    ) -> Request {
        // The wait for replicas writes to the key of the last command and undoes that. Therefore the last command
        // concerns the index, which always belongs to this service. It removes nothing, because no name is empty.
        let last = partitions.iter().map(|partition| {
            let mut last = cmd("ZREM");
            last.arg(self.key_names.index(*partition)).arg("");
            (partition.slot(), last)
        });
        let request = Request::write(commands, last, self.acks, self.client.limits().answer);
        request.and_then_read(self.key_names.layout_reads(partitions.iter().copied()))
    }

    /// Sends a request of [`Self::writes_to`]. Returns the answers and whether `known` was in force.
    pub(super) async fn send_writes(&self, request: Request, known: &KnownLayout) -> Result<(Vec<Value>, bool), Error> {
        // Counts and probes must not queue behind a wait for replicas. Therefore the request shares the connection of
        // batches.
        let reply = self.batches.send(request).await?;
        reply.replicated.clone()?;
        let [answers, last, layouts] = reply.into_steps();
        last.into_iter().try_for_each(|result| result.map(drop))?;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_confirmed = known.are_confirmed_by(layouts)?;
        Ok((answers, is_confirmed))
    }

    /// Counts and logs that `key` belongs to another program, and returns the error.
    pub(super) fn foreign_key(&self, key: String) -> Error {
        let error = Error::ForeignKey(key);
        self.batches.report(error.as_failure());
        error
    }
}
