//! The members of a segment, in order of time.

mod error;
mod limits;
mod merge;
mod query;
mod reader;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::error::MemberListError;
pub(super) use self::limits::MemberLimits;
pub use self::query::MembersQuery;
use self::reader::{MemberReader, ReadOutcome, WeightedMember};
use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{Score, Timestamp, UserId};
use crate::store::{Member, Store};

/// A listed member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMember {
    /// The user.
    pub user_id: UserId<'static>,
    /// The time of the last visit.
    pub last_seen: Score,
    /// The time from which the user doesn't count over the window, without another visit.
    pub expires: Timestamp,
    /// The number of users that this one stands for: 1 unless the segment keeps a sample.
    pub weight: u64,
}

/// A list of the members of a segment, which is read in pages.
///
/// The order is by the time of the last visit and then by the bytes of the id. It doesn't depend on the partitions. If
/// a resharding changes the key set that counts read, the list continues in the new one after its last member.
///
/// A user who counts from the first page to the last is listed at least once. One who visits the segment in between may
/// be listed again with the later time.
///
/// A segment that keeps a sample has only the members of the sample, each with its weight. The weights are those of the
/// beginning of the list. A raise deletes members of a partition, so the list ends with an error then.
#[derive(Debug)]
pub struct MemberList {
    store: Store,
    query: MembersQuery,
    /// How many members may still be listed.
    remaining: usize,
    reader: Option<MemberReader>,
    /// Whether a member was listed.
    has_begun: bool,
    requests: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
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
            reader: None,
            has_begun: false,
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
    /// [`MemberListError::Sampled`] if the segment keeps a sample and the query doesn't accept one.
    /// [`MemberListError::SampleChanged`] if members were listed before and their weights no longer hold. Otherwise
    /// [`MemberListError::Store`] if Redis failed; the list may be continued.
    pub async fn next(&mut self, now: Timestamp) -> Result<Option<Vec<SegmentMember>>, MemberListError> {
        let cutoff = self.query.window.cutoff(now);
        while self.remaining > 0 {
            let Some(reader) = &mut self.reader else {
                self.reader = Some(MemberReader::begin(&self.store, &self.query, cutoff).await?);
                continue;
            };
            match reader.read(&self.store, &self.requests, &self.query.segment, cutoff).await? {
                ReadOutcome::Complete => {}
                ReadOutcome::OtherKeySet => {
                    self.reader = None;
                    self.query.from = self.query.from.take().map(Member::before_rounding);
                    continue;
                }
                ReadOutcome::Raised if self.has_begun => return Err(MemberListError::SampleChanged),
                ReadOutcome::Raised => {
                    self.reader = None;
                    continue;
                }
            }
            let members = reader.take();
            if let Some(last) = members.last() {
                self.query.from = Some(last.member.clone());
            } else if reader.is_at_end() {
                break;
            }
            let members: Vec<_> = self.listed(members).collect();
            if !members.is_empty() {
                self.remaining -= members.len();
                self.has_begun = true;
                return Ok(Some(members));
            }
        }
        Ok(None)
    }

    /// Returns the users among `members` that may still be listed. Leaves out scores of another program that are no
    /// times: a list can't continue after them, because their text is another time.
    fn listed(&self, members: Vec<WeightedMember>) -> impl Iterator<Item = SegmentMember> {
        let length = self.query.window.duration();
        let members = members.into_iter().filter(|listed| listed.member.score.is_time());
        let users = members.filter_map(move |WeightedMember { member, weight }| {
            let last_seen = member.score;
            let expires = last_seen.timestamp() + length;
            Some(SegmentMember { user_id: member.into_user()?, last_seen, expires, weight })
        });
        users.take(self.remaining)
    }
}
