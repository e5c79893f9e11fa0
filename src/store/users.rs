//! The segments of a user, and the deletion of a user.
//!
//! A user belongs to one partition, whose index lists the segments that may contain the user. No other key maps users
//! to segments.
//!
//! # Deletion during a resharding
//!
//! A copy from the old to the new key set may be in flight when the user is deleted from both, and would add the member
//! again. Therefore [`Store::delete_user`] first adds a tombstone beside the new key set. When all members are copied,
//! [`Store::reconcile_user`] makes the new key set agree with the old one for each user with a tombstone. No copy is in
//! flight for tombstones that are added later. Tombstones are deleted after the resharding, or expire after a window.

use std::collections::BTreeSet;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd, pipe};

use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::{Batch, Error, IndexCursor, KeySet, Layout, Partition, Phase, Resharding, Store};
use crate::domain::{SegmentName, Timestamp, UserId, Visit};
use crate::redis::{self, Request, parse};

/// Removes the member `ARGV[1]` of the segment `KEYS[1]` if its score is still `ARGV[2]`.
const REMOVE_IF_UNCHANGED: &str = "\
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])";

/// Adds the user `ARGV[1]` to the tombstones `KEYS[1]`, which expire after `ARGV[2]` seconds. Returns nil if the key
/// has another type, or a member with a score other than 0. Such a key belongs to another program and stays as it is.
const ADD_TOMBSTONE: &str = "\
local users = redis.pcall('ZCARD', KEYS[1])
if type(users) ~= 'number' then return not string.find(users.err, 'WRONGTYPE', 1, true) and users end
if redis.call('ZCOUNT', KEYS[1], 0, 0) ~= users then return false end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])";

impl Store {
    /// Number of segments that a request searches for a user. Redis takes a microsecond or two for each.
    const SEGMENTS_PER_REQUEST: usize = 250;

    /// Returns the segments that contain `user`, expired or not, with the time of the last visit, in order of their
    /// names.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn visits_of(&self, user: &UserId<'_>) -> Result<Vec<(SegmentName<'static>, Timestamp)>, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            let (mut found, mut cursor): (Vec<_>, Option<IndexCursor>) = (Vec::new(), None);
            loop {
                let page = self.index_of(partition, cursor.as_ref(), Self::SEGMENTS_PER_REQUEST).await?;
                let Attempt::Committed(scores) = self.scores_of(user, partition, &page.segments, &known).await? else {
                    return Ok(Attempt::Stale);
                };
                let seen = page.segments.into_iter().zip(scores);
                found.extend(seen.filter_map(|(segment, at)| at.map(|at| (segment, at))));
                cursor = page.next;
                if cursor.is_none() {
                    return Ok(Attempt::Committed(found));
                }
            }
        })
        .await
    }

    /// Returns the time of the last visit of `user` to `segment`, expired or not, in one round trip.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn last_visit(&self, segment: &SegmentName<'_>, user: &UserId<'_>) -> Result<Option<Timestamp>, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            Ok(match self.scores_of(user, partition, slice::from_ref(segment), &known).await? {
                Attempt::Committed(scores) => Attempt::Committed(scores.into_iter().next().flatten()),
                Attempt::Stale => Attempt::Stale,
            })
        })
        .await
    }

    /// Returns for each of `visits` whether Redis has it, or a later one of its user to its segment; `None` if the key
    /// of the segment has another type. Writes nothing, not even a missing layout record.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn are_kept(&self, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let mut found = self.existing_layout().await?;
        for _ in 0..Self::ATTEMPTS {
            let Some(layout) = found else { return Ok(vec![Some(false); visits.len()]) };
            let kept = self.are_kept_by(&layout, visits).await?;
            found = self.existing_layout().await?;
            if found == Some(layout) {
                return Ok(kept);
            }
        }
        Err(Error::UnconfirmedLayout)
    }

    async fn are_kept_by(&self, layout: &Layout, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let lookups = visits.iter().map(|visit| {
            let partition = layout.read().of(hash(visit.user_id.as_str()));
            let mut score = cmd("ZSCORE");
            score.arg(self.key_names.segment(partition, visit.segment.as_str())).arg(visit.user_id.as_str());
            (partition.slot(), score)
        });
        let request_of = |lookups| Request::each(lookups).probe();
        let scores = self.client.send_by_server::<Option<f64>>(lookups, request_of).await?;
        let is_kept = |(visit, score): (&Visit<'_>, Result<Option<f64>, redis::Error>)| match score {
            Err(error) if error.is_wrong_type() => Ok(None),
            score => Ok(Some(score?.is_some_and(|score| score >= visit.seen_at.as_score()))),
        };
        visits.iter().zip(scores).map(is_kept).collect()
    }

    /// Returns the time of the last visit of `user` to each of `segments`, in `partition`.
    async fn scores_of(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        segments: &[SegmentName<'_>],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Option<Timestamp>>>, Error> {
        let commands = segments.iter().map(|segment| {
            let mut command = cmd("ZSCORE");
            command.arg(self.key_names.segment(partition, segment.as_str())).arg(user.as_str());
            (partition.slot(), command)
        });
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads([partition]));
        let reply = self.client.send(request.nil_for(redis::Error::is_wrong_type)).await?;
        let [scores, layouts] = reply.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let scores = scores.into_iter().map(|answer| answer.and_then(parse::<Option<f64>>));
        let scores = scores.map(|score| score.map(|score| score.map(Timestamp::from_unix_seconds)));
        Ok(Attempt::Committed(scores.collect::<Result<_, _>>()?))
    }

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
        self.with_layout(|known| async move {
            if let Some(Resharding { to, phase: Phase::Backfill }) = known.layout.resharding() {
                let partition = to.of(hash(user.as_str()));
                if let Attempt::Stale = self.add_tombstone(user, partition, retention, &known).await? {
                    return Ok(Attempt::Stale);
                }
            }
            for keys in known.layout.written() {
                let partition = keys.of(hash(user.as_str()));
                if let Attempt::Stale = self.remove_from(partition, user, &known, removed_from).await? {
                    return Ok(Attempt::Stale);
                }
            }
            Ok(Attempt::Committed(()))
        })
        .await?;
        Ok(removed.into_inner().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    /// Removes `user` from all segments in `partition`, and calls `removed_from` for each that contained the user.
    async fn remove_from(
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
                command.arg(self.key_names.segment(partition, segment.as_str())).arg(user.as_str());
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

    /// Adds a tombstone of `user` to `partition`, which belongs to the new key set.
    async fn add_tombstone(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        retention: Duration,
        known: &KnownLayout,
    ) -> Result<Attempt<()>, Error> {
        let key = self.key_names.tombstones(partition);
        let mut add = cmd("EVAL");
        add.arg(ADD_TOMBSTONE).arg(1).arg(&key).arg(user.as_str()).arg(retention.as_secs());
        let (answers, is_confirmed) = self.write_in(partition, [add], known).await?;
        if !is_confirmed {
            return Ok(Attempt::Stale);
        }
        if answers.contains(&Value::Nil) {
            let error = Error::ForeignKey(key);
            self.batches.report(error.as_failure());
            return Err(error);
        }
        Ok(Attempt::Committed(()))
    }

    /// Writes with `commands` to `partition`, and waits for replicas if required. Returns the answers and whether
    /// `known` was in force.
    async fn write_in(
        &self,
        partition: Partition,
        commands: impl IntoIterator<Item = Cmd>,
        known: &KnownLayout,
    ) -> Result<(Vec<Value>, bool), Error> {
        // The wait for replicas writes to the key of the last command and undoes that. Therefore the last command
        // concerns the index, which always belongs to this service. It removes nothing, because no name is empty.
        let mut last = cmd("ZREM");
        last.arg(self.key_names.index(partition)).arg("");
        let commands = commands.into_iter().map(|command| (partition.slot(), command));
        let last = [(partition.slot(), last)];
        let request = Request::write(commands, last, self.acks, self.client.limits().answer);
        let request =
            request.and_then_read(self.key_names.layout_reads([partition])).nil_for(redis::Error::is_wrong_type);
        // Counts and probes must not queue behind a wait for replicas. Therefore the request shares the connection of
        // batches.
        let reply = self.batches.send(request).await?;
        reply.replicated.clone()?;
        let [removals, last, layouts] = reply.into_steps();
        last.into_iter().try_for_each(|result| result.map(drop))?;
        let removals = removals.into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_confirmed = known.are_confirmed_by(layouts)?;
        Ok((removals, is_confirmed))
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
                let Attempt::Committed(found) = self.scores_of(user, partition, segments, &known).await? else {
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
                    let script = removals.cmd("EVAL").arg(REMOVE_IF_UNCHANGED).arg(1);
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
