//! The segments of a user.
//!
//! A user belongs to one partition, whose index lists the segments that may contain the user. No other key maps users
//! to segments.

use std::collections::BTreeMap;
use std::iter;

use ::redis::{Cmd, Value, cmd};

use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::sampling::segment_depth::SegmentDepth;
use super::{Error, IndexCursor, Layout, Partition, Store};
use crate::domain::{Depth, Level, SegmentName, Timestamp, UserId, Visit};
use crate::redis::{self, Request, Slot, parse};

/// What is known of a user in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The user was last seen at this time, expired or not.
    SeenAt(Timestamp),
    /// The user wasn't seen.
    Absent,
    /// The segment keeps a sample of this depth, which leaves out the user.
    NotKnown(Depth),
}

impl Store {
    /// Number of segments that a request searches for a user. Redis takes a microsecond or two for each.
    pub(super) const SEGMENTS_PER_REQUEST: usize = 250;

    /// Returns the segments that contain `user`, expired or not, and those of which it isn't known for members that
    /// were seen after `cutoff`, in order of their names. No other segment contains the user.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn visits_of(
        &self,
        user: &UserId<'_>,
        cutoff: Timestamp,
    ) -> Result<Vec<(SegmentName<'static>, Presence)>, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            let (mut found, mut cursor): (Vec<_>, Option<IndexCursor>) = (Vec::new(), None);
            loop {
                let page = self.index_of(partition, cursor.as_ref(), Self::SEGMENTS_PER_REQUEST).await?;
                let pairs = page.segments.iter().map(|segment| (user, segment));
                let Attempt::Committed(scores) = self.scores_in(partition, pairs, &known).await? else {
                    return Ok(Attempt::Stale);
                };
                let seen = page.segments.into_iter().zip(scores);
                found.extend(seen.filter_map(|(segment, at)| Some((segment, Presence::SeenAt(at?)))));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            if partition.bound().is_some() {
                let Attempt::Committed(mut depths) = self.depths_without(user, partition, cutoff, &known).await? else {
                    return Ok(Attempt::Stale);
                };
                let level = Level::of(user.as_str());
                found.retain(|(segment, presence)| match (depths.get(segment), presence) {
                    (Some(depth), Presence::SeenAt(at)) => *at > cutoff && depth.at(*at).keeps(level),
                    _ => true,
                });
                found.iter().for_each(|(segment, _)| {
                    depths.remove(segment);
                });
                let not_known = |depth: SegmentDepth| Presence::NotKnown(depth.at(cutoff));
                found.extend(depths.into_iter().map(|(segment, depth)| (segment, not_known(depth))));
                found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            }
            Ok(Attempt::Committed(found))
        })
        .await
    }

    /// Returns the depths of the segments whose sample in `partition`, of members that were seen after `cutoff`, leaves
    /// out `user`. An emptied segment may be missing in the index and still have a depth.
    async fn depths_without(
        &self,
        user: &UserId<'_>,
        partition: Partition,
        cutoff: Timestamp,
        known: &KnownLayout,
    ) -> Result<Attempt<BTreeMap<SegmentName<'static>, SegmentDepth>>, Error> {
        let level = Level::of(user.as_str());
        let request = Request::each([self.depths_read(partition)]);
        let request = request.and_then_read(self.key_names.layout_reads([partition]));
        let [depths, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let mut without = BTreeMap::new();
        for depths in depths {
            for (name, depth) in self.parse_depths(partition, depths)? {
                // A text of another program concerns its segment alone, of which nothing is known.
                let depth = depth.unwrap_or_else(|| SegmentDepth::steady(Depth::MAX));
                if let Ok(name) = SegmentName::parse(name)
                    && !depth.at(cutoff).keeps(level)
                {
                    without.insert(name, depth);
                }
            }
        }
        Ok(Attempt::Committed(without))
    }

    /// Returns what is known of `user` in `segment`, for members that were seen after `cutoff`, in one round trip.
    ///
    /// The depth is read behind the member. A raise in between deletes the level of a member that its depth leaves out.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn presence(
        &self,
        segment: &SegmentName<'_>,
        user: &UserId<'_>,
        cutoff: Timestamp,
    ) -> Result<Presence, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            let depth = partition.bound().map(|_| self.depth_read(partition, segment));
            let Attempt::Committed((scores, depths)) =
                self.scores_and(partition, [(user, segment)], depth, &known).await?
            else {
                return Ok(Attempt::Stale);
            };
            let level = Level::of(user.as_str());
            let last_seen = scores.into_iter().next().flatten();
            for depth in depths {
                let depth = self.parse_depth(partition, depth)?;
                let is_kept = last_seen.is_some_and(|at| at > cutoff && depth.at(at).keeps(level));
                if !is_kept && !depth.at(cutoff).keeps(level) {
                    return Ok(Attempt::Committed(Presence::NotKnown(depth.at(cutoff))));
                }
            }
            Ok(Attempt::Committed(last_seen.map_or(Presence::Absent, Presence::SeenAt)))
        })
        .await
    }

    /// Returns for each of `visits` whether Redis has it, or a later one of its user to its segment, or if a sample of
    /// the segment leaves it out; `None` if the key of the segment has another type. Writes nothing, not even a missing
    /// layout record.
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
        let lookups = visits.iter().flat_map(|visit| {
            let partition = layout.read().of(hash(visit.user_id.as_str()));
            let mut score = cmd("ZSCORE");
            score
                .arg(self.key_names.segment(partition.key_of(visit.user_id.as_str()), visit.segment.as_str()))
                .arg(visit.user_id.as_str());
            let depth = partition.bound().map(|_| self.depth_read(partition, &visit.segment));
            iter::once((partition.slot(), score)).chain(depth)
        });
        let request_of = |lookups| Request::each(lookups).probe();
        let mut answers = self.client.send_by_server::<Value>(lookups, request_of).await?.into_iter();
        let mut next = || answers.next().expect("each command has an answer");
        let mut kept = Vec::with_capacity(visits.len());
        for visit in visits {
            let partition = layout.read().of(hash(visit.user_id.as_str()));
            let is_kept = match next().and_then(parse::<Option<f64>>) {
                Err(error) if error.is_wrong_type() => None,
                score => Some(score?.is_some_and(|score| score >= visit.seen_at.as_score())),
            };
            let is_left_out = if partition.bound().is_some() {
                // While the depth falls, the visits since then are written.
                let depth = self.parse_depth(partition, next())?.at(visit.seen_at);
                !depth.keeps(Level::of(visit.user_id.as_str()))
            } else {
                false
            };
            kept.push(is_kept.map(|is_kept| is_kept || is_left_out));
        }
        Ok(kept)
    }

    /// Returns for each pair what is known of the user in the segment, for members of any time. All users belong to
    /// `partition`.
    pub(super) async fn presences_in(
        &self,
        partition: Partition,
        pairs: &[&(UserId<'static>, SegmentName<'static>)],
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Presence>>, Error> {
        let is_bounded = partition.bound().is_some();
        let depths = pairs.iter().filter(|_| is_bounded).map(|(_, segment)| self.depth_read(partition, segment));
        let each = pairs.iter().map(|(user, segment)| (user, segment));
        let Attempt::Committed((scores, depths)) = self.scores_and(partition, each, depths, known).await? else {
            return Ok(Attempt::Stale);
        };
        let mut depths = depths.into_iter();
        let presences = pairs.iter().zip(scores).map(|((user, _), last_seen)| {
            let depth = match depths.next() {
                Some(depth) => self.parse_depth(partition, depth)?.complete(),
                None => Depth::ZERO,
            };
            Ok(match last_seen {
                _ if !depth.keeps(Level::of(user.as_str())) => Presence::NotKnown(depth),
                Some(last_seen) => Presence::SeenAt(last_seen),
                None => Presence::Absent,
            })
        });
        Ok(Attempt::Committed(presences.collect::<Result<_, Error>>()?))
    }

    /// Returns for each pair the time of the user's last visit to the segment. All users belong to `partition`.
    async fn scores_in<'a, 'u: 'a, 's: 'a>(
        &self,
        partition: Partition,
        pairs: impl IntoIterator<Item = (&'a UserId<'u>, &'a SegmentName<'s>)>,
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Option<Timestamp>>>, Error> {
        Ok(match self.scores_and(partition, pairs, None, known).await? {
            Attempt::Committed((scores, _)) => Attempt::Committed(scores),
            Attempt::Stale => Attempt::Stale,
        })
    }

    /// Returns the times as [`Self::scores_in`] does, and the answers to the commands `behind`, in one round trip.
    async fn scores_and<'a, 'u: 'a, 's: 'a>(
        &self,
        partition: Partition,
        pairs: impl IntoIterator<Item = (&'a UserId<'u>, &'a SegmentName<'s>)>,
        behind: impl IntoIterator<Item = (Slot, Cmd)>,
        known: &KnownLayout,
    ) -> Result<Attempt<(Vec<Option<Timestamp>>, Vec<Result<Value, redis::Error>>)>, Error> {
        let commands = pairs.into_iter().map(|(user, segment)| {
            let mut command = cmd("ZSCORE");
            command.arg(self.key_names.segment(partition.key_of(user.as_str()), segment.as_str())).arg(user.as_str());
            (partition.slot(), command)
        });
        let request = Request::each(commands).nil_for(redis::Error::is_wrong_type);
        let request = request.and_then_read(behind).and_then_read(self.key_names.layout_reads([partition]));
        let [scores, behind, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let scores = scores.into_iter().map(|answer| answer.and_then(parse::<Option<f64>>));
        let scores = scores.map(|score| score.map(|score| score.map(Timestamp::from_unix_seconds)));
        Ok(Attempt::Committed((scores.collect::<Result<_, _>>()?, behind)))
    }
}
