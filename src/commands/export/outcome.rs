//! What was exported, and why an export is incomplete.

use std::io;

use crate::domain::SegmentName;
use crate::store;

/// What was exported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ExportCounts {
    /// A user who visits a segment during the export may be written twice.
    pub visits: u64,
    /// Segments that were skipped because their keys aren't sorted sets. Each partition counts separately.
    pub segments_failed: u64,
}

/// Why an export is incomplete, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output failed.
    #[error("failed to write the visits: {0}")]
    Output(#[from] io::Error),
    /// Redis can't serve.
    #[error("Redis can't serve: {0}")]
    Store(#[from] store::Error),
    /// There is no data set.
    #[error("there is no data set; give the redis_url or data_dir and the redis_key_prefix of the service")]
    NoDataSet,
    /// The data set has no such segments. Has each with similar names.
    #[error("the data set has no segment {0}")]
    UnknownSegments(String),
    /// A segment keeps a sample of its users.
    #[error(
        "{segment} keeps one user in {weight}, so the export would lack the others; with --sample it has the users that are kept, and each \
         line says how many users it stands for"
    )]
    Sampled {
        /// The first such segment.
        segment: String,
        /// The number of users for each one that is kept.
        weight: u64,
    },
    /// A segment keeps a smaller sample than at the start of its export, so that the weights are wrong.
    #[error(
        "{0} grew beyond the maximum of users that it keeps during the export, so visits are missing; run the export again"
    )]
    Shrunk(SegmentName<'static>),
    /// The data set was moved to other partitions during the export.
    #[error(
        "the data set was moved to other partitions during the export, so visits are missing; run the export again"
    )]
    PartitionsChanged,
}
