//! Why a move did not complete.

use super::destination::arguments;
use crate::domain::SegmentName;
use crate::redis;
use crate::store::diagnostics::EvictionPolicy;
use crate::store::{self, KeySet};

/// Why a move did not complete. The same command resumes it.
#[derive(Debug, thiserror::Error)]
pub enum RepartitionError {
    /// Redis can't serve, or has an unexpected data set. Nothing was moved.
    #[error("Redis can't serve: {0}")]
    Refused(store::Error),
    /// Redis failed.
    #[error("{0}; the move so far is kept; {remedy}run the same command again", remedy = remedy(.0))]
    Store(#[from] store::Error),
    /// Redis may evict tombstones or copied members. Nothing was moved.
    #[error("Redis {0}, and then run the same command again: a move needs every key to stay")]
    Evicts(EvictionPolicy),
    /// A key that the move would overwrite or delete holds foreign data. Nothing was moved.
    #[error(
        "`{0}` holds data that no move of this data set wrote, and this move would overwrite it; rename or delete that key, and run the \
         same command again; nothing was moved"
    )]
    ForeignKey(String),
    /// A cluster can't keep the keys of one partition together.
    #[error("--to: a cluster needs at least 2 partitions, since the keys of one would be on all servers")]
    OneOnACluster,
    /// Segments keep samples, and users outside of them are gone.
    #[error(
        "--max-members off: users that weren't kept can't be brought back; to keep more from now on, move to a larger maximum; to keep \
         all, load the visits into a new data set; nothing was moved"
    )]
    NotKept,
    /// A move to other keys is in progress.
    #[error(
        "a move to {} is in progress; finish it first with `segment-estimator repartition {}`",
        .0.in_words(),
        arguments(*.0)
    )]
    AnotherMove(KeySet),
    /// Another process changed the layout.
    #[error(
        "another process is moving the data as well; wait until it ends, and run the same command again if it fails"
    )]
    LayoutChanged,
    /// Old and new keys keep differing in deleted users or segments.
    #[error(
        "deleted users or segments have new visits so often that old and new keys never agree; run the same command again"
    )]
    UnsettledDeletions,
    /// Old and new keys keep differing in a count.
    #[error(
        "{segment} has {old} users in the old keys and {new} in the new ones, and the counts do not converge; nothing was switched, and \
         nothing is lost"
    )]
    CountsDiffer {
        /// The first such segment.
        segment: SegmentName<'static>,
        /// The count in the old keys.
        old: u64,
        /// The count in the new keys.
        new: u64,
    },
}

/// Returns what to do before the next run.
fn remedy(error: &store::Error) -> &'static str {
    match error {
        store::Error::Redis(redis::Error::WrongType { .. }) => "rename or delete that key, and ",
        _ => "",
    }
}

/// Converts the error of a layout that another process has changed.
pub(super) fn layout_changed(error: store::Error) -> RepartitionError {
    match error {
        store::Error::LayoutChanged => RepartitionError::LayoutChanged,
        error => error.into(),
    }
}
