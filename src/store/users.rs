//! One user in all segments: where he is, and having him forgotten.
//!
//! A user is in one partition, whose index tells which segments he may be in. That is all: nothing else says where a user is.
//!
//! While data moves to other keys, a member that is copied may be on its way between the old keys and the new when its user is
//! deleted from both, and would be there again when it arrives. So the deletion is noted first, beside the new keys, and when all is
//! copied the move has each noted user be in the new keys as he is in the old ([`Store::settle_user`]). A deletion that is noted
//! after that finds nothing on its way. The notes go when the move is over, or after a window.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd, pipe};

use super::keys::hash;
use super::layout::{Attempt, KnownLayout};
use super::{Batch, Error, IndexCursor, KeySet, Layout, Partition, Phase, Resharding, Store};
use crate::domain::{SegmentName, Timestamp, UserId, Visit};
use crate::redis::{self, Request, parse};

/// Removes the member `ARGV[1]` of the segment `KEYS[1]` if its score is `ARGV[2]` still.
const REMOVE_IF_UNCHANGED: &str = "\
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])";

/// Adds the user `ARGV[1]` to `KEYS[1]`, which is kept for `ARGV[2]` seconds. Tombstones have the score 0. A key with another score, or of
/// another type, is another program's, and stays as it is.
const ADD_TOMBSTONE: &str = "\
local users = redis.pcall('ZCARD', KEYS[1])
if type(users) ~= 'number' then return not string.find(users.err, 'WRONGTYPE', 1, true) and users end
if redis.call('ZCOUNT', KEYS[1], 0, 0) ~= users then return false end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])";

impl Store {
    /// How many segments a user is looked for in at once. Redis takes a microsecond or two for each.
    const SEGMENTS_PER_REQUEST: usize = 250;

    /// The segments that have `user` as a member, expired or not, and when he was last seen there, in name order.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
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

    /// Returns for each of `visits` whether it is there, or a later one of its user to its segment; `None` if the key of the segment is of
    /// another type. Writes nothing, and so goes by the layout that is found.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn are_kept(&self, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let mut found = self.found_layout().await?;
        for _ in 0..Self::ATTEMPTS {
            let Some(layout) = found else { return Ok(vec![Some(false); visits.len()]) };
            let kept = self.are_kept_by(&layout, visits).await?;
            found = self.found_layout().await?;
            if found == Some(layout) {
                return Ok(kept);
            }
        }
        Err(Error::UnknownLayout)
    }

    async fn are_kept_by(&self, layout: &Layout, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let partition = |visit: &Visit<'_>| layout.read().of(hash(visit.user_id.as_str()));
        let mut kept = vec![None; visits.len()];
        let places: Vec<_> = (0..visits.len()).collect();
        for places in self.client.by_server(places, |place| partition(&visits[*place]).slot()).await? {
            let commands = places.iter().map(|place| {
                let (visit, partition) = (&visits[*place], partition(&visits[*place]));
                let mut command = cmd("ZSCORE");
                command.arg(self.names.segment(partition, visit.segment.as_str())).arg(visit.user_id.as_str());
                (partition.slot(), command)
            });
            let answers = self.client.send(Request::each(commands).probe()).await?.each::<Option<f64>>();
            for (place, answer) in places.into_iter().zip(answers) {
                kept[place] = match answer {
                    Err(error) if error.is_wrong_type() => None,
                    answer => Some(answer?.is_some_and(|score| score >= visits[place].seen_at.as_score())),
                };
            }
        }
        Ok(kept)
    }

    /// When `user` was last seen in each of `segments` in `partition`. The layout must be the one in force.
    async fn scores_of(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        segments: &[SegmentName<'_>],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Option<Timestamp>>>, Error> {
        let commands = segments.iter().map(|segment| {
            let mut command = cmd("ZSCORE");
            command.arg(self.names.segment(partition, segment.as_str())).arg(user.as_str());
            (partition.slot(), command)
        });
        let request = Request::each(commands).and_then_read(self.names.layout_reads([partition]));
        let reply = self.client.send(request.nil_for(redis::Error::is_wrong_type)).await?;
        let [scores, layouts] = reply.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let scores = scores.into_iter().map(|answer| answer.and_then(parse::<Option<f64>>));
        let scores = scores.map(|score| score.map(|score| score.map(Timestamp::from_unix_seconds)));
        Ok(Attempt::Committed(scores.collect::<Result<_, _>>()?))
    }

    /// Removes `user` from all segments, and says from how many; those count that he was in until lately and that have not been
    /// pruned. With [`WriteAcks`](crate::redis::WriteAcks), so many replicas know of it. A visit that is acknowledged before is gone, and one
    /// that is recorded meanwhile may be there. What has to be noted while data moves is kept for `kept`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't acknowledge all. He may have been removed from any.
    pub async fn delete_user(&self, user: &UserId<'_>, kept: Duration) -> Result<u64, Error> {
        // An attempt that was in vain has removed some already.
        let removed = Mutex::new(BTreeSet::new());
        let removed_from = |segment: SegmentName<'static>| {
            removed.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
        };
        let removed_from = &removed_from;
        self.with_layout(|known| async move {
            if let Some(Resharding { to, phase: Phase::Backfill }) = known.layout.resharding() {
                let partition = to.of(hash(user.as_str()));
                if let Attempt::Stale = self.add_tombstone(user, partition, kept, &known).await? {
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

    /// Removes `user` from all segments in `partition`, and tells from which.
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
                command.arg(self.names.segment(partition, segment.as_str())).arg(user.as_str());
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

    /// Notes beside the keys of `partition`, which data is copied to, that `user` is deleted.
    async fn add_tombstone(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        kept: Duration,
        known: &KnownLayout,
    ) -> Result<Attempt<()>, Error> {
        let key = self.names.tombstones(partition);
        let mut add = cmd("EVAL");
        add.arg(ADD_TOMBSTONE).arg(1).arg(&key).arg(user.as_str()).arg(kept.as_secs());
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

    /// Sends commands that write in `partition`, waits for replicas if they are asked, and gives the answers, and whether `known` was in
    /// force.
    async fn write_in(
        &self,
        partition: Partition,
        commands: impl IntoIterator<Item = Cmd>,
        known: &KnownLayout,
    ) -> Result<(Vec<Value>, bool), Error> {
        // What waits for replicas changes the key of the last command, and changes it back. That should be a key of ours, and the
        // index is. No name is empty.
        let mut last = cmd("ZREM");
        last.arg(self.names.index(partition)).arg("");
        let commands = commands.into_iter().map(|command| (partition.slot(), command));
        let last = [(partition.slot(), last)];
        let request = Request::write(commands, last, self.acks, self.client.limits().answer);
        let request = request.and_then_read(self.names.layout_reads([partition])).nil_for(redis::Error::is_wrong_type);
        // Counts and probes must not wait for replicas. Batches do so, too.
        let reply = self.batches.send(request).await?;
        reply.replicated.clone()?;
        let [removals, last, layouts] = reply.into_steps();
        last.into_iter().try_for_each(|result| result.map(drop))?;
        let removals = removals.into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_confirmed = known.are_confirmed_by(layouts)?;
        Ok((removals, is_confirmed))
    }

    /// Up to `limit` users whose deletion is noted in `partition`, in the order of their ids' bytes, after the user `after`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn tombstones_of(
        &self,
        partition: Partition,
        after: Option<&UserId<'_>>,
        limit: usize,
    ) -> Result<Vec<UserId<'static>>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |user| format!("({}", user.as_str()));
        let mut pipeline = pipe();
        let range = pipeline.cmd("ZRANGE").arg(self.names.tombstones(partition)).arg(from).arg("+");
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let (users,): (Vec<String>,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(users.into_iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    /// Has `user` be in the segments of `new` as he is in those of `old`, while visits are written to both and nobody counts the new.
    /// Says whether anything had to be done; what was done may have been too much by the time, so that it is looked at again.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer. [`Error::UnknownLayout`] when `layout` is not in force any more.
    pub async fn settle_user(
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
            // The old first: what an acknowledged visit has written is there by then, and what isn't there may go from the new.
            let mut scores = Vec::new();
            for partition in [old, target] {
                let Attempt::Committed(found) = self.scores_of(user, partition, segments, &known).await? else {
                    return Err(Error::UnknownLayout);
                };
                scores.push(found);
            }
            let [should, are] = <[_; 2]>::try_from(scores).expect("there are two partitions");
            let mut removals = pipe();
            for ((segment, should), is) in segments.iter().zip(should).zip(are) {
                if should == is {
                    continue;
                }
                is_changed = true;
                if let Some(is) = is.filter(|is| should.is_none_or(|should| should < *is)) {
                    let script = removals.cmd("EVAL").arg(REMOVE_IF_UNCHANGED).arg(1);
                    script.arg(self.names.segment(target, segment.as_str())).arg(user.as_str()).arg(is.as_score());
                }
                if let Some(seen_at) = should {
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

    /// Deletes the notes beside `keys`, which nobody makes while `layout` is in force.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer. [`Error::UnknownLayout`] when another layout is in force.
    pub async fn delete_tombstones(&self, layout: &Layout, keys: KeySet) -> Result<(), Error> {
        for partition in keys.all() {
            self.delete_tombstones_of(layout, partition).await?;
        }
        Ok(())
    }
}
