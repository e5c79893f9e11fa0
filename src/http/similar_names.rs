//! Suggestions for the name of an unknown segment.

use std::time::Duration;

use tokio::time::timeout;

use super::state::AppState;
use crate::domain::SegmentName;

/// Returns known segments with names similar to `segment`. An answer without them is better than none, so errors and
/// long walks over the index give none.
pub async fn similar_names(state: &AppState, segment: &SegmentName<'_>) -> Vec<SegmentName<'static>> {
    const MAX_NAMES: usize = 3;
    const MAX_WAIT: Duration = Duration::from_secs(2);
    match timeout(MAX_WAIT, state.estimator.similar_names(segment, MAX_NAMES)).await {
        Ok(Ok(names)) => names,
        _ => Vec::new(),
    }
}
