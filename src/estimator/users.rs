//! One user: the segments that he is in, and having him forgotten.

use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp, UserId};
use crate::store;

/// That a user is in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// When the user was last seen in it.
    pub last_seen: Timestamp,
    /// From when on the user doesn't count there any more, unless seen again.
    pub expires: Timestamp,
}

impl Estimator {
    /// The segments that `user` is in at `now`, in name order.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer.
    pub async fn segments_of(&self, user: &UserId<'_>, now: Timestamp) -> Result<Vec<Membership>, store::Error> {
        let cutoff = self.window.cutoff(now);
        let visits = self.store.visits_of(user).await?;
        let live = visits.into_iter().filter(|(_, last_seen)| *last_seen > cutoff);
        let membership =
            |(segment, last_seen)| Membership { segment, last_seen, expires: last_seen + self.window.duration() };
        Ok(live.map(membership).collect())
    }

    /// Removes `user` from every segment, those included where he has expired already, and says how many they were. A visit that is
    /// recorded later puts him into its segment again.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't acknowledge it. Some segments may have him still; whoever repeats it removes him there.
    pub async fn delete_user(&self, user: &UserId<'_>) -> Result<u64, store::Error> {
        self.store.forget(user, self.retention().await?.duration()).await
    }
}
