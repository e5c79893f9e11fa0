//! The deletion of a segment.

use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp};
use crate::store::{self, DeletedSegment};

impl Estimator {
    /// Deletes `segment`, and counts its users at `now` in the same step. Its history is deleted as well, unless
    /// `keeps_history` is true. A later visit creates the segment again.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis didn't acknowledge the deletion. Any part may be deleted; a retry deletes the rest, and
    /// counts the rest alone.
    pub async fn delete_segment(
        &self,
        segment: &SegmentName<'_>,
        keeps_history: bool,
        now: Timestamp,
    ) -> Result<DeletedSegment, store::Error> {
        let (cutoff, retention) = (self.window.cutoff(now), self.retention().await?.duration());
        let deleted = self.store.delete_segment(segment, cutoff, now, keeps_history, retention).await?;
        // A kept history makes the segment known.
        let is_known = deleted.is_known || (keeps_history && self.is_known(segment, false).await?);
        Ok(DeletedSegment { is_known, ..deleted })
    }
}
