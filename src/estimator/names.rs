//! The names of segments.

use super::estimator::Estimator;
use crate::domain::SegmentName;
use crate::store::{self, IndexCursor};

impl Estimator {
    /// Returns the first `max` names of the index that begin with `prefix`, in the order of their bytes.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn names_with_prefix(&self, prefix: &str, max: usize) -> Result<Vec<SegmentName<'static>>, store::Error> {
        let mut names = self.store.index(IndexCursor::before(prefix).as_ref(), max).await?.segments;
        names.retain(|name| name.as_str().starts_with(prefix));
        Ok(names)
    }
}
