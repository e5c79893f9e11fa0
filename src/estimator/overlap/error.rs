//! Why an overlap fails.

use std::time::Duration;

use crate::domain::Window;
use crate::estimator::error::TooMany;
use crate::store;

/// Why an overlap failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OverlapError {
    /// The window is longer than the configured one. Some of its members may be pruned.
    #[error("must not be longer than the configured window of {0}")]
    WindowTooLong(Window),
    /// Too many overlaps are running.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The service stops, so no read begins.
    #[error("the service is stopping")]
    Stopping,
    /// The deadline has passed.
    #[error("the overlap was not known within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Redis failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
