//! The errors of estimates, lists and overlaps.

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

/// A kind of read that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostlyReads {
    /// Overlaps and audiences: they read the members of segments.
    Overlaps,
    /// Lists, and requests for a user: they read every segment.
    Lists,
    /// Lists of members.
    Members,
}

/// All permits are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} {}", match .reads {
    CostlyReads::Overlaps => "overlaps and audiences are running, and the queue is full or the wait is over",
    CostlyReads::Lists => "lists and requests for users are already running",
    CostlyReads::Members => "lists of members are already running",
})]
pub struct TooMany {
    /// The kind of reads.
    pub reads: CostlyReads,
    /// How many may run at a time.
    pub max: usize,
}
