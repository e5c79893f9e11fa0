//! Paging through the members of a segment while they change.
//!
//! Ranks shift as members are visited again, expire, or arrive late. A page therefore starts at the estimated rank,
//! less an overlap with the previous page. If it starts beyond the previous page's last member, members may lie in
//! between, and the rank is looked up. Every member that stays unchanged is returned, because the order by score and
//! then by name doesn't depend on other members. (`ZSCAN` guarantees this as well, but its cursor is valid on one
//! server alone.)
//!
//! Redis takes four times as long for scores as for names. A page of names therefore includes the scores of its first
//! and last member alone, read both before and after the names. If both reads agree, and name the first and last member
//! of the page, those were the scores when the page was read.

mod member;
mod page;
mod pages;

use ::redis::{Pipeline, pipe};

pub use self::member::{Member, MembersCursor};
use self::page::PageSearch;
pub use self::pages::KeyPage;
use super::Error;
use super::{Partition, SegmentKey, Store};
use crate::domain::{SegmentName, Timestamp, UserId};
use crate::redis::Request;

/// A page of members.
#[derive(Debug)]
pub struct MembersPage {
    /// Users and the times of their last visits, in order of time.
    pub members: Vec<(UserId<'static>, Timestamp)>,
    /// The start of the next page; `None` on the last.
    pub next: Option<MembersCursor>,
}

impl Store {
    /// Maximum number of members of a page. Redis takes about a millisecond for it.
    pub const PAGE: usize = 1_000;
    /// Number of names of a page of names. Redis takes half a millisecond for it. Twice as many delay writes
    /// noticeably, and don't make reading a segment faster.
    const NAMES: usize = 500;
    /// Overlap of pages of names, as [`PageSearch`] has one.
    const NAMES_OVERLAP: usize = 25;

    /// Returns a page of the members of `segment` in `key` after `cursor`, or the first page. All pages together
    /// contain every member that was present throughout, at least once. A member that is visited again moves to the end
    /// and is returned again.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn members(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        cursor: Option<&MembersCursor>,
    ) -> Result<MembersPage, Error> {
        let (page, next) = self.page(key, segment, cursor).await?;
        Ok(MembersPage { members: page.into_iter().filter_map(Member::into_visit).collect(), next })
    }

    /// Returns the position before all members of `segment` in `key` that were seen after `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn members_after(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
    ) -> Result<MembersCursor, Error> {
        self.cursor_after(key, segment, Member::last_at(cutoff)).await
    }

    /// Returns the names of a page of members that were seen after `cutoff`, including names that are not a valid
    /// [`UserId`]. A page may repeat names of the previous one. Otherwise as [`Self::members`].
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn member_names(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        cutoff: Timestamp,
        cursor: &MembersCursor,
    ) -> Result<(Vec<Vec<u8>>, Option<MembersCursor>), Error> {
        let rank = cursor.rank.saturating_sub(Self::NAMES_OVERLAP);
        let name = self.key_names.segment(key, segment.as_str());
        if let Some((first, last, names)) = self.names_from(key.partition, &name, rank).await?
            && first.score > cutoff.into()
            && (first <= cursor.last || rank == 0)
            && last > cursor.last
        {
            return Ok((names, Some(MembersCursor { last, rank: rank + Self::NAMES })));
        }
        let (page, next) = self.page(key, segment, Some(cursor)).await?;
        Ok((page.into_iter().map(|member| member.name).collect(), next))
    }

    /// Returns the first member, the last member and the names of a full page that begins at `rank`; `None` if the page
    /// isn't full or the scores of these members changed.
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
        let [first, last] = [first, last].map(|mut end| end.pop().map(Member::from_pair));
        Ok(first
            .zip(last)
            .filter(|(first, last)| {
                names.len() == Self::NAMES && names.first() == Some(&first.name) && names.last() == Some(&last.name)
            })
            .map(|(first, last)| (first, last, names)))
    }

    /// Returns the page after `cursor` and the start of the next one.
    async fn page(
        &self,
        key: SegmentKey,
        segment: &SegmentName<'_>,
        cursor: Option<&MembersCursor>,
    ) -> Result<(Vec<Member>, Option<MembersCursor>), Error> {
        let mut search = PageSearch::new(key, cursor, Self::PAGE);
        loop {
            let mut pipeline = pipe();
            pipeline.add_command(search.command(&self.key_names.segment(key, segment.as_str())));
            let (members,): (Vec<(Vec<u8>, f64)>,) =
                self.client.send(Request::new(key.partition.slot(), pipeline)).await?.all()?;
            match search.page(members) {
                Some(page) => return Ok(page),
                None => self.retry(&mut search, segment).await?,
            }
        }
    }

    /// Returns the number of members of `segment` in `key`, including expired ones.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn members_kept(&self, key: SegmentKey, segment: &SegmentName<'_>) -> Result<u64, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("ZCARD").arg(self.key_names.segment(key, segment.as_str()));
        let (members,) = self.client.send(Request::new(key.partition.slot(), pipeline)).await?.all()?;
        Ok(members)
    }
}
