//! The search for the page after a position.

use ::redis::{Cmd, cmd, pipe};

use super::{Member, MembersCursor};
use crate::domain::SegmentName;
use crate::redis::Request;
use crate::store::{Error, SegmentKey, Store};

/// The search for the members of a key after a position. Its command reads members by rank, and may have to be
/// repeated at another rank.
pub(super) struct PageSearch {
    pub(super) key: SegmentKey,
    /// The position; `None` is the start.
    after: Option<Member>,
    rank: usize,
    size: usize,
}

impl PageSearch {
    /// Part of a page that overlaps with the previous one. A member that is visited again between two pages moves to
    /// the end, and the rank of each later member decreases by one.
    const OVERLAP: usize = 20;

    /// Begins the search for up to `size` members after `cursor`, including the overlap.
    pub(super) fn new(key: SegmentKey, cursor: Option<&MembersCursor>, size: usize) -> Self {
        let (after, rank) = cursor.map_or((None, 0), |cursor| (Some(cursor.last.clone()), cursor.rank));
        Self { key, after, rank: rank.saturating_sub((size / Self::OVERLAP).max(1)), size }
    }

    /// Returns the command that reads members of the key `name`.
    pub(super) fn command(&self, name: &str) -> Cmd {
        let mut command = cmd("ZRANGE");
        command.arg(name).arg(self.rank).arg(self.rank + self.size - 1).arg("WITHSCORES");
        command
    }

    /// Takes the members that the command returned. Returns the page and the start of the next one; `None` if members
    /// may lie between the position and these, or if these do not reach it.
    pub(super) fn page(&mut self, members: Vec<(Vec<u8>, f64)>) -> Option<(Vec<Member>, Option<MembersCursor>)> {
        let mut page: Vec<_> = members.into_iter().map(Member::from_pair).collect();
        let is_seen = |member: &Member| self.after.as_ref().is_some_and(|last| member <= last);
        let is_full = page.len() == self.size;
        let begins_beyond = self.rank > 0 && !page.first().is_some_and(is_seen);
        let ends_before = is_full && page.last().is_some_and(is_seen);
        if begins_beyond || ends_before {
            return None;
        }
        let next = page.last().filter(|_| is_full);
        let next = next.map(|last| MembersCursor { last: last.clone(), rank: self.rank + self.size });
        page.retain(|member| !is_seen(member));
        Some((page, next))
    }

    /// Continues at `rank`, with a larger page around it. So the search ends, however fast members change.
    fn retry_at(&mut self, rank: usize) {
        self.size *= 2;
        self.rank = rank.saturating_sub(self.size / 2);
    }
}

impl Store {
    /// Looks up the rank at which `search` continues.
    pub(super) async fn retry(&self, search: &mut PageSearch, segment: &SegmentName<'_>) -> Result<(), Error> {
        let rank = match &search.after {
            Some(position) => self.rank_after(search.key, segment, position).await?,
            None => 0,
        };
        search.retry_at(rank);
        Ok(())
    }

    /// Returns the cursor after `position`, which need not be a member.
    pub(super) async fn cursor_after(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        position: Member,
    ) -> Result<MembersCursor, Error> {
        let rank = self.rank_after(key, segment, &position).await?;
        Ok(MembersCursor { last: position, rank })
    }

    /// Returns the rank of the first member after `position`.
    async fn rank_after(&self, key: SegmentKey, segment: &SegmentName<'_>, position: &Member) -> Result<usize, Error> {
        let (name, score) = (self.key_names.segment(key, segment.as_str()), position.score.as_unix_seconds());
        let mut pipeline = pipe();
        pipeline.cmd("ZCOUNT").arg(&name).arg("-inf").arg(format!("({score}"));
        pipeline.cmd("ZCOUNT").arg(&name).arg("-inf").arg(score);
        let (mut low, mut high): (usize, usize) =
            self.client.send(Request::new(key.partition.slot(), pipeline)).await?.all()?;
        // Members with the same score are in the order of their names. An import may have given it to millions.
        while low < high {
            let middle = low.midpoint(high);
            let mut pipeline = pipe();
            pipeline.cmd("ZRANGE").arg(&name).arg(middle).arg(middle).arg("WITHSCORES");
            let (member,): (Vec<(Vec<u8>, f64)>,) =
                self.client.send(Request::new(key.partition.slot(), pipeline)).await?.all()?;
            let is_before = member.into_iter().next().is_some_and(|member| Member::from_pair(member) <= *position);
            *if is_before { &mut low } else { &mut high } = middle + usize::from(is_before);
        }
        Ok(low)
    }
}
