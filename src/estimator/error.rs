//! Why a number is not known.

use super::concurrency_limit::TooMany;
use crate::domain::Window;
use crate::store;

/// Why a segment could not be estimated over a window of the caller's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The window is longer than the one that members are kept for, which is given.
    #[error("must not be longer than the configured window of {0}")]
    WindowTooLong(Window),
    /// Too many lists are being made.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Redis didn't answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}
