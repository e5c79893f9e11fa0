//! The members of a segment, in order of time.

mod limits;
mod merge;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use self::limits::MemberLimits;
use self::merge::Merge;
use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{Score, SegmentName, Timestamp, UserId, Window};
use crate::store::{self, KeySet, Member, MembersCursor, SegmentKey, Store};

/// Which members of a segment are listed.
#[derive(Debug, Clone)]
pub struct MembersQuery {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// Members that were seen within this window.
    pub window: Window,
    /// The member after which the list begins. It need not exist.
    pub from: Option<Member>,
    /// The most members; all if `None`.
    pub limit: Option<usize>,
}

/// A listed member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMember {
    /// The user.
    pub user_id: UserId<'static>,
    /// The time of the last visit.
    pub last_seen: Score,
    /// The time from which the user doesn't count over the window, without another visit.
    pub expires: Timestamp,
}

/// A list of the members of a segment, which is read in pages.
///
/// The order is by the time of the last visit and then by the bytes of the id. It doesn't depend on the partitions. If
/// a resharding changes the key set that counts read, the list continues in the new one after its last member.
///
/// A user who counts from the first page to the last is listed at least once. One who visits the segment in between may
/// be listed again with the later time.
#[derive(Debug)]
pub struct MemberList {
    store: Store,
    query: MembersQuery,
    /// How many members may still be listed.
    remaining: usize,
    reading: Option<Reading>,
    requests: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

/// A read of the partitions of one key set.
#[derive(Debug)]
struct Reading {
    keys: KeySet,
    merge: Merge<Member, (SegmentKey, MembersCursor)>,
}

impl Reading {
    /// Members that a read of all partitions returns.
    const MEMBERS: usize = 4_096;
    /// The fewest members of a page.
    const MIN_PAGE: usize = 8;

    fn page_size(&self) -> usize {
        (Self::MEMBERS / self.keys.segment_keys().count()).clamp(Self::MIN_PAGE, Store::PAGE)
    }
}

impl Estimator {
    /// Limits concurrent lists of members to `max`.
    #[must_use]
    pub fn with_max_member_lists(mut self, max: usize) -> Self {
        self.member_limits = MemberLimits::new(max);
        self
    }

    /// Begins a list of members. It holds a permit until it is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::WindowTooLong`] if the window is longer than [`Estimator::window`], and [`Error::TooMany`] if all permits
    /// are taken.
    pub fn members(&self, query: MembersQuery) -> Result<MemberList, Error> {
        self.check_window(query.window)?;
        let MemberLimits { lists, requests } = &self.member_limits;
        Ok(MemberList {
            store: self.store.clone(),
            remaining: query.limit.unwrap_or(usize::MAX),
            query,
            reading: None,
            requests: Arc::clone(requests),
            _permit: lists.try_acquire()?,
        })
    }
}

impl MemberList {
    /// Returns the next members, which count at `now`; `None` at the end. There are a few thousand at most.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed. The list may be continued.
    pub async fn next(&mut self, now: Timestamp) -> Result<Option<Vec<SegmentMember>>, store::Error> {
        let cutoff = self.query.window.cutoff(now);
        while self.remaining > 0 {
            let Some(reading) = &mut self.reading else {
                self.reading = Some(self.begin(cutoff).await?);
                continue;
            };
            if !Self::read(&self.store, &self.requests, &self.query.segment, reading, cutoff).await? {
                self.reading = None;
                self.query.from = self.query.from.take().map(Member::before_rounding);
                continue;
            }
            let members = reading.merge.take();
            if let Some(last) = members.last() {
                self.query.from = Some(last.clone());
            } else if reading.merge.is_at_end() {
                break;
            }
            let members: Vec<_> = self.listed(members).collect();
            if !members.is_empty() {
                self.remaining -= members.len();
                return Ok(Some(members));
            }
        }
        Ok(None)
    }

    /// Begins to read after the last member.
    async fn begin(&self, cutoff: Timestamp) -> Result<Reading, store::Error> {
        let expired = Member::last_at(cutoff);
        let position = self.query.from.as_ref().map_or(&expired, |from| from.max(&expired));
        let keys = self.store.layout().await?.read();
        let cursors = self.store.cursors_after(&self.query.segment, keys.segment_keys(), position).await?;
        Ok(Reading { keys, merge: Merge::new(cursors) })
    }

    /// Reads the pages that the merge needs. Returns false if counts read another key set now.
    async fn read(
        store: &Store,
        requests: &Semaphore,
        segment: &SegmentName<'_>,
        reading: &mut Reading,
        cutoff: Timestamp,
    ) -> Result<bool, store::Error> {
        let size = reading.page_size();
        let due = reading.merge.due(size / 2);
        if due.is_empty() {
            return Ok(true);
        }
        let (sources, cursors): (Vec<_>, Vec<_>) = due.into_iter().map(|(source, rest)| (source, rest.clone())).unzip();
        let pages = {
            let _request = requests.acquire().await.expect("the semaphore is never closed");
            store.pages_after(segment, reading.keys, &cursors, size).await?
        };
        let Some(pages) = pages else { return Ok(false) };
        for ((source, (key, _)), (page, next)) in sources.into_iter().zip(cursors).zip(pages) {
            let live = page.into_iter().filter(|member| member.score > cutoff.into());
            reading.merge.fill(source, live, next.map(|next| (key, next)));
        }
        Ok(true)
    }

    /// Returns the users among `members` that may still be listed. Leaves out scores of another program that are no
    /// times: a list can't continue after them, because their text is another time.
    fn listed(&self, members: Vec<Member>) -> impl Iterator<Item = SegmentMember> {
        let length = self.query.window.duration();
        let users = members.into_iter().filter(|member| member.score.is_time()).filter_map(move |member| {
            let last_seen = member.score;
            Some(SegmentMember { user_id: member.into_user()?, last_seen, expires: last_seen.timestamp() + length })
        });
        users.take(self.remaining)
    }
}
