//! The members of a segment, page by page, while they change.
//!
//! Ranks shift as members are visited again, expire, or come late. So a page begins where its rank is guessed to be, with some
//! that were seen already; if it begins beyond the last of those, something may lie between, and the look goes back. What was
//! there all the while is seen, always: the order of members, by score and then by name, doesn't depend on the rest.
//! (`ZSCAN` promises that as well, as long as the server stays the same: its cursor means nothing to another.)
//!
//! Redis takes four times as long for scores as for names. Whoever needs names alone gets the scores of the first and the last of a
//! page only, read before and behind it: if they are the same both times, and of those who are the first and the last of
//! the page, they were theirs when the page was read.

use redis::{Pipeline, pipe};

use super::Error;
use super::{Partition, Store};
use crate::domain::{SegmentName, Timestamp, UserId};
use crate::redis::Request;

/// Some members of a segment.
#[derive(Debug)]
pub struct MembersPage {
    /// Users, and when they were last seen, in that order.
    pub members: Vec<(UserId<'static>, Timestamp)>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<MembersCursor>,
}

/// A place among a segment's members: after this one.
#[derive(Debug, Clone)]
pub struct MembersCursor {
    last: Member,
    /// Where the next is, unless something has changed.
    rank: usize,
}

/// A member as Redis has it, in Redis's order.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct Member {
    score: f64,
    name: Vec<u8>,
}

impl Store {
    /// How many members a page has at the most. Redis takes about a millisecond for it.
    pub const PAGE: usize = 1_000;
    /// How many of them may have been seen already. Who is visited again between two pages moves to the end, and all behind him
    /// move up by one.
    const OVERLAP: usize = 50;
    /// How many names a page of names has. Redis takes half a millisecond for it: with twice as many, those who post wait
    /// noticeably longer, and reading a segment takes as long.
    const NAMES: usize = 500;
    /// As [`Self::OVERLAP`], of names.
    const NAMES_OVERLAP: usize = 25;

    /// Some members of `segment` in `partition` that come after `cursor`, or the first: all that have been there since the first
    /// page, each at least once. Who is visited again meanwhile moves to the end, and is given again.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn members(
        &self,
        partition: Partition,
        segment: &SegmentName<'_>,
        cursor: Option<&MembersCursor>,
    ) -> Result<MembersPage, Error> {
        let (page, next) = self.page(partition, segment, cursor).await?;
        Ok(MembersPage { members: page.into_iter().filter_map(Member::into_visit).collect(), next })
    }

    /// The place among the members of `segment` in `partition` that is before all who were seen after `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn members_after(
        &self,
        partition: Partition,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<MembersCursor, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("ZCOUNT").arg(self.names.segment(partition, segment.as_str())).arg("-inf").arg(cutoff.as_score());
        let (rank,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        // No text begins with this byte, so that all who were seen at the cutoff come before.
        let last = Member { score: cutoff.as_score(), name: vec![u8::MAX] };
        Ok(MembersCursor { last, rank })
    }

    /// As [`Self::members`], of those who were seen after `cutoff`: the names alone, as Redis has them, also those that no
    /// [`UserId`] may be. Some of a page may be those of the page before.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn member_names(
        &self,
        partition: Partition,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
        cursor: &MembersCursor,
    ) -> Result<(Vec<Vec<u8>>, Option<MembersCursor>), Error> {
        let rank = cursor.rank.saturating_sub(Self::NAMES_OVERLAP);
        let key = self.names.segment(partition, segment.as_str());
        if let Some((first, last, names)) = self.names_from(partition, &key, rank).await?
            && first.score > cutoff.as_score()
            && (first <= cursor.last || rank == 0)
            && last > cursor.last
        {
            return Ok((names, Some(MembersCursor { last, rank: rank + Self::NAMES })));
        }
        let (page, next) = self.page(partition, segment, Some(cursor)).await?;
        Ok((page.into_iter().map(|member| member.name).collect(), next))
    }

    /// The names of a full page that begins at `rank`, with its first member and its last; none if it isn't full, or it isn't
    /// certain what their scores were.
    async fn names_from(
        &self,
        partition: Partition,
        key: &str,
        rank: usize,
    ) -> Result<Option<(Member, Member, Vec<Vec<u8>>)>, Error> {
        let end = rank + Self::NAMES - 1;
        let mut pipeline = pipe();
        let ends = |pipeline: &mut Pipeline| {
            for rank in [rank, end] {
                pipeline.cmd("ZRANGE").arg(key).arg(rank).arg(rank).arg("WITHSCORES");
            }
        };
        ends(&mut pipeline);
        pipeline.cmd("ZRANGE").arg(key).arg(rank).arg(end);
        ends(&mut pipeline);
        type Ends = Vec<(Vec<u8>, f64)>;
        let (first, last, names, first_again, last_again): (Ends, Ends, Vec<Vec<u8>>, Ends, Ends) =
            self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        if first != first_again || last != last_again {
            return Ok(None);
        }
        let [first, last] = [first, last].map(|mut end| end.pop().map(|(name, score)| Member { score, name }));
        Ok(first
            .zip(last)
            .filter(|(first, last)| {
                names.len() == Self::NAMES && names.first() == Some(&first.name) && names.last() == Some(&last.name)
            })
            .map(|(first, last)| (first, last, names)))
    }

    /// The page behind `cursor`, and where the next one starts.
    async fn page(
        &self,
        partition: Partition,
        segment: &SegmentName<'_>,
        cursor: Option<&MembersCursor>,
    ) -> Result<(Vec<Member>, Option<MembersCursor>), Error> {
        let key = self.names.segment(partition, segment.as_str());
        let (last, expected) = cursor.map_or((None, 0), |cursor| (Some(&cursor.last), cursor.rank));
        let is_seen = |member: &Member| last.is_some_and(|last| member <= last);
        let mut rank = expected.saturating_sub(Self::OVERLAP);
        let mut back = Self::PAGE;
        loop {
            let mut page = self.members_from(partition, &key, rank).await?;
            let is_full = page.len() == Self::PAGE;
            if rank > 0 && !page.first().is_some_and(is_seen) {
                rank = rank.saturating_sub(back);
                back *= 2;
            } else if is_full && page.last().is_some_and(is_seen) {
                rank += Self::PAGE - 1;
            } else {
                let next = page.last().filter(|_| is_full);
                let next = next.map(|last| MembersCursor { last: last.clone(), rank: rank + Self::PAGE });
                page.retain(|member| !is_seen(member));
                return Ok((page, next));
            }
        }
    }

    /// How many members `segment` has in `partition`, expired ones included.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn members_kept(&self, partition: Partition, segment: &SegmentName<'_>) -> Result<u64, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("ZCARD").arg(self.names.segment(partition, segment.as_str()));
        let (members,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(members)
    }

    /// A page of members that begins at `rank`.
    async fn members_from(&self, partition: Partition, key: &str, rank: usize) -> Result<Vec<Member>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("ZRANGE").arg(key).arg(rank).arg(rank + Self::PAGE - 1).arg("WITHSCORES");
        let (members,): (Vec<(Vec<u8>, f64)>,) =
            self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(members.into_iter().map(|(name, score)| Member { score, name }).collect())
    }
}

impl Member {
    /// As a user and a time; none if it is no user of ours.
    fn into_visit(self) -> Option<(UserId<'static>, Timestamp)> {
        let user_id = UserId::parse(String::from_utf8(self.name).ok()?).ok()?;
        Some((user_id, Timestamp::from_unix_seconds(self.score)))
    }
}
