//! A single user: reading and deleting their memberships.

use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp, UserId, Window};
use crate::store;

/// A user in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// The time of the last visit.
    pub last_seen: Timestamp,
    /// The time from which the user doesn't count over the window, without another visit.
    pub expires: Timestamp,
}

impl Membership {
    fn new(segment: SegmentName<'static>, last_seen: Timestamp, window: Window) -> Self {
        Self { segment, last_seen, expires: last_seen + window.duration() }
    }
}

impl Estimator {
    /// Returns the memberships of `user` at `now`, ordered by the name of the segment.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn segments_of(&self, user: &UserId<'_>, now: Timestamp) -> Result<Vec<Membership>, store::Error> {
        let cutoff = self.window.cutoff(now);
        let visits = self.store.visits_of(user).await?;
        let live = visits.into_iter().filter(|(_, last_seen)| *last_seen > cutoff);
        Ok(live.map(|(segment, last_seen)| Membership::new(segment, last_seen, self.window)).collect())
    }

    /// Returns the membership of `user` in `segment` within `window` before `now`; `None` if the user doesn't count
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn membership(
        &self,
        segment: &SegmentName<'_>,
        user: &UserId<'_>,
        window: Window,
        now: Timestamp,
    ) -> Result<Option<Membership>, Error> {
        self.check_window(window)?;
        let last_seen = self.store.last_visit(segment, user).await?;
        let live = last_seen.filter(|last_seen| *last_seen > window.cutoff(now));
        Ok(live.map(|last_seen| Membership::new(segment.clone().into_owned(), last_seen, window)))
    }

    /// Removes `user` from every segment, including expired memberships, and returns the number of segments. A later
    /// visit adds the user again.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis didn't acknowledge the deletion. Some memberships may remain; a retry removes them.
    pub async fn delete_user(&self, user: &UserId<'_>) -> Result<u64, store::Error> {
        self.store.delete_user(user, self.retention().await?.duration()).await
    }

    /// Removes `user` from `segment`, unless the user was seen there after `removed_at`, and returns whether there was a
    /// membership to remove, expired or not. A later visit adds the user again.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis didn't acknowledge the removal. A retry is harmless.
    pub async fn remove_user(
        &self,
        user: &UserId<'_>,
        segment: &SegmentName<'_>,
        removed_at: Option<Timestamp>,
    ) -> Result<bool, store::Error> {
        self.store.remove_user(user, segment, removed_at, self.retention().await?.duration()).await
    }
}
