//! A single user: reading and deleting their memberships.

use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{Depth, SegmentName, Timestamp, UserId, Window};
use crate::store::{self, Presence};

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

/// The segments of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSegments {
    /// The segments that the user is known to be in, ordered by name.
    pub memberships: Vec<Membership>,
    /// The segments that keep a sample without the user, ordered by name. The user may be in any of them.
    pub not_known: Vec<SegmentName<'static>>,
}

/// Whether a user is in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsMember {
    /// The user is in the segment.
    Yes(Membership),
    /// The user isn't in the segment.
    No,
    /// The segment keeps a sample of this depth without the user.
    NotKnown(Depth),
}

impl Membership {
    fn new(segment: SegmentName<'static>, last_seen: Timestamp, window: Window) -> Self {
        Self { segment, last_seen, expires: last_seen + window.duration() }
    }
}

impl Estimator {
    /// Returns the segments of `user` at `now`.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn segments_of(&self, user: &UserId<'_>, now: Timestamp) -> Result<UserSegments, store::Error> {
        let cutoff = self.window.cutoff(now);
        let mut segments = UserSegments::default();
        for (segment, presence) in self.store.visits_of(user, cutoff).await? {
            match presence {
                Presence::SeenAt(last_seen) if last_seen > cutoff => {
                    segments.memberships.push(Membership::new(segment, last_seen, self.window));
                }
                Presence::SeenAt(_) | Presence::Absent => {}
                Presence::NotKnown(_) => segments.not_known.push(segment),
            }
        }
        Ok(segments)
    }

    /// Returns whether `user` is in `segment` within `window` before `now`.
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
    ) -> Result<IsMember, Error> {
        self.check_window(window)?;
        let cutoff = window.cutoff(now);
        Ok(match self.store.presence(segment, user, cutoff).await? {
            Presence::SeenAt(last_seen) if last_seen > cutoff => {
                IsMember::Yes(Membership::new(segment.clone().into_owned(), last_seen, window))
            }
            Presence::SeenAt(_) | Presence::Absent => IsMember::No,
            Presence::NotKnown(depth) => IsMember::NotKnown(depth),
        })
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
