//! Suggestions for the names of unknown segments.

use std::time::Duration;

use tokio::time::timeout;

use super::state::AppState;
use crate::domain::SegmentName;

/// Returns for each of `segments` known ones with similar names. An answer without them is better than none, so errors
/// and long walks over the index give none.
pub async fn similar_names(state: &AppState, segments: &[&SegmentName<'_>]) -> Vec<Vec<SegmentName<'static>>> {
    const MAX_NAMES: usize = 3;
    const MAX_WAIT: Duration = Duration::from_secs(2);
    if segments.is_empty() {
        return Vec::new();
    }
    match timeout(MAX_WAIT, state.estimator.similar_names(segments, MAX_NAMES)).await {
        Ok(Ok(names)) => names,
        _ => vec![Vec::new(); segments.len()],
    }
}
