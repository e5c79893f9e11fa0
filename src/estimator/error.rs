//! The errors of estimates and lists.

use super::concurrency_limit::TooMany;
use crate::domain::Window;
use crate::store;

/// Why an estimate or a list failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The window is longer than the configured one. Some of its members may be pruned.
    #[error("must not be longer than the configured window of {0}")]
    WindowTooLong(Window),
    /// Too many lists are running.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Redis failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
