//! All that is kept of one user: where he was seen, and having it removed.
//!
//! A user's whole record is in one partition. His segments are looked for by its index: there is no list of them, which every visit
//! would have to write.
//!
//! # While the data moves
//!
//! Visits are written to old and new keys while what is there already is copied ([`Phase::Copying`]), and a removal is from both. But a
//! page of members that was read before it would bring the user back to the new ones. So his removal is noted there first, in
//! `forgotten`; and after copying, before anything is counted by the new keys, whoever is noted is removed from those again, unless
//! the old ones have him: he was seen again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd, pipe};

use super::commands::Commands;
use super::connection::read;
use super::keys::hash;
use super::layout::{Attempt, KnownLayout};
use super::{Error, IndexCursor, Keyspace, Partition, Phase, Store, WriteAcks};
use crate::segment::{SegmentName, UserId};
use crate::time::Timestamp;

/// Removes the member `ARGV[1]` from `KEYS[1]` unless its score is above `ARGV[2]`.
const REMOVE_UP_TO: &str = "\
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])";

impl Store {
    /// How many segments are looked at in one round trip. Redis takes a microsecond for each.
    const LOOKED_AT_ONCE: usize = 1_000;

    /// The segments that have `user` as a member, expired or not, and when he was last seen there, in name order.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn visits_of(&self, user: &UserId<'_>) -> Result<Vec<(SegmentName<'static>, Timestamp)>, Error> {
        self.by_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            let (mut visits, mut cursor) = (Vec::new(), None);
            loop {
                let page = self.index_of(partition, cursor.as_ref(), Self::LOOKED_AT_ONCE).await?;
                let looks = page.segments.iter().map(|segment| (partition.slot(), score(partition, segment, user)));
                let commands = Commands::each(looks).and_layouts([partition]);
                let mut answers = self.connection.query_settled(commands, |_| {}).await?;
                let record = answers.pop().expect("the last is the layout's")?;
                if !known.is_confirmed_by(&record) {
                    return Ok(Attempt::Outdated);
                }
                for (segment, answer) in page.segments.into_iter().zip(answers) {
                    if let Some(score) = member(answer.and_then(read::<Option<f64>>))?.flatten() {
                        visits.push((segment, Timestamp::from_unix_seconds(score)));
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    return Ok(Attempt::Done(visits));
                }
            }
        })
        .await
    }

    /// Removes `user` from all segments, at the time `now`, and says from how many. A visit that is written meanwhile may be removed
    /// or stay. Where replicas must have a visit, they must have the removal, too.
    ///
    /// That a move is under way is noted for as long as members count, for `window`: what would be brought back after that has expired.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't acknowledge all of it. Whoever repeats it removes the rest.
    pub async fn forget(&self, user: &UserId<'_>, now: Timestamp, window: Duration) -> Result<u64, Error> {
        // Of all attempts together: what one removed, the next doesn't find.
        let removed = Mutex::new(BTreeSet::new());
        let removed = &removed;
        let forgetting = self.by_layout(|known| async move {
            let hash = hash(user.as_str());
            if let Some(moving) = known.layout.moving()
                && moving.phase == Phase::Copying
            {
                let partition = moving.to.of(hash);
                let note = note(partition, user, now, window);
                let (noted, is_confirmed) = self.write_and_confirm(note, partition, &known).await?;
                noted.into_iter().collect::<Result<Vec<_>, _>>()?;
                if !is_confirmed {
                    return Ok(Attempt::Outdated);
                }
            }
            for keys in known.layout.written() {
                if !self.forget_in(keys.of(hash), user, &known, removed).await? {
                    return Ok(Attempt::Outdated);
                }
            }
            Ok(Attempt::Done(()))
        });
        forgetting.await?;
        Ok(removed.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    /// Removes `user` from all segments of `partition`, and adds these to `removed`. Says whether `known` was in force all the while.
    async fn forget_in(
        &self,
        partition: Partition,
        user: &UserId<'_>,
        known: &KnownLayout,
        removed: &Mutex<BTreeSet<SegmentName<'static>>>,
    ) -> Result<bool, Error> {
        let mut cursor: Option<IndexCursor> = None;
        loop {
            let page = self.index_of(partition, cursor.as_ref(), Self::LOOKED_AT_ONCE).await?;
            let remove = |segment: &SegmentName<'_>| {
                let mut remove = cmd("ZREM");
                remove.arg(partition.segment_key(segment.as_str())).arg(user.as_str());
                remove
            };
            let removals = page.segments.iter().map(remove).collect();
            let (answers, is_confirmed) = self.write_and_confirm(removals, partition, known).await?;
            for (segment, answer) in page.segments.into_iter().zip(answers) {
                if member(answer.and_then(read::<u64>))?.is_some_and(|removed| removed > 0) {
                    removed.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
                }
            }
            cursor = page.next;
            if cursor.is_none() || !is_confirmed {
                return Ok(is_confirmed);
            }
        }
    }

    /// Has `commands`, which write to `partition`, executed and acknowledged as visits are. Gives their results, and whether `known` was in
    /// force.
    async fn write_and_confirm(
        &self,
        commands: Vec<Cmd>,
        partition: Partition,
        known: &KnownLayout,
    ) -> Result<(Vec<Result<Value, Error>>, bool), Error> {
        // Where nothing is written there is nothing to wait for.
        let acks = if commands.is_empty() { WriteAcks::default() } else { self.acks };
        let commands = commands.into_iter().map(|command| (partition.slot(), command));
        let commands = Commands::write(commands, [], acks, self.limits().answer).and_layouts([partition]);
        let mut record = None;
        let settle = |results: &mut Vec<Result<Value, Error>>| {
            record = results.pop();
            acks.settle(results);
        };
        let answers = self.connection.query_settled(commands, settle).await?;
        let record = record.expect("the last is the layout's")?;
        Ok((answers, known.is_confirmed_by(&record)))
    }

    /// Removes from `new` who was removed from `old` while that was copied to `new`, and was brought back by it. A visit that is being
    /// written to both may have reached the new keys alone: if it is older than the removal, it is removed there, too, and the copies
    /// have to be compared, as they must be anyhow.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn forget_again(&self, old: Keyspace, new: Keyspace) -> Result<(), Error> {
        for partition in new.all() {
            let mut pipeline = pipe();
            pipeline.cmd("ZRANGE").arg(partition.forgotten_key()).arg(0).arg(-1).arg("WITHSCORES");
            // As many as were removed while the data moved: few.
            let (noted,): (Vec<(String, f64)>,) = self.connection.query(partition.slot(), pipeline).await?;
            for (user, at) in noted {
                let Ok(user) = UserId::parse(user) else { continue };
                self.forget_copies(&user, at, old.of(hash(user.as_str())), partition).await?;
            }
        }
        Ok(())
    }

    /// Removes `user` from those segments of `new` where he was last seen at `at` or before, and that `old` doesn't have him in.
    async fn forget_copies(&self, user: &UserId<'_>, at: f64, old: Partition, new: Partition) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let page = self.index_of(new, cursor.as_ref(), Self::LOOKED_AT_ONCE).await?;
            let mut segments = self.with_member(new, page.segments, user).await?;
            let kept = self.with_member(old, segments.clone(), user).await?;
            segments.retain(|segment| !kept.contains(segment));
            let mut pipeline = Pipeline::with_capacity(segments.len());
            for segment in &segments {
                let script = pipeline.cmd("EVAL").arg(REMOVE_UP_TO).arg(1).arg(new.segment_key(segment.as_str()));
                script.arg(user.as_str()).arg(at);
            }
            if !segments.is_empty() {
                self.connection.query::<Vec<u64>>(new.slot(), pipeline).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Those of `segments` that have `user` as a member in `partition`.
    async fn with_member(
        &self,
        partition: Partition,
        segments: Vec<SegmentName<'static>>,
        user: &UserId<'_>,
    ) -> Result<Vec<SegmentName<'static>>, Error> {
        let looks = segments.iter().map(|segment| (partition.slot(), score(partition, segment, user)));
        let answers = self.connection.query_settled(Commands::each(looks), |_| {}).await?;
        let mut with_member = Vec::new();
        for (segment, answer) in segments.into_iter().zip(answers) {
            if member(answer.and_then(read::<Option<f64>>))?.flatten().is_some() {
                with_member.push(segment);
            }
        }
        Ok(with_member)
    }

    /// Deletes the notes that [`Self::forget`] left in `keys`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn delete_notes(&self, keys: Keyspace) -> Result<(), Error> {
        for partition in keys.all() {
            let mut pipeline = pipe();
            pipeline.cmd("UNLINK").arg(partition.forgotten_key());
            self.connection.query::<Value>(partition.slot(), pipeline).await?;
        }
        Ok(())
    }
}

/// What a segment says of a user; none where the key holds something else, which has no members.
fn member<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error::WrongType { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Asks when `user` was last seen.
fn score(partition: Partition, segment: &SegmentName<'_>, user: &UserId<'_>) -> Cmd {
    let mut score = cmd("ZSCORE");
    score.arg(partition.segment_key(segment.as_str())).arg(user.as_str());
    score
}

/// Notes in `partition` that `user` was removed at `now`, for as long as members count.
fn note(partition: Partition, user: &UserId<'_>, now: Timestamp, window: Duration) -> Vec<Cmd> {
    let (mut note, mut expire) = (cmd("ZADD"), cmd("EXPIRE"));
    note.arg(partition.forgotten_key()).arg("GT").arg(now.as_score()).arg(user.as_str());
    expire.arg(partition.forgotten_key()).arg(window.as_secs());
    vec![note, expire]
}
