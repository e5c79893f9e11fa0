//! The result of delivering a chunk.

use std::time::Duration;

use crate::ingest::LineError;

/// The result of a delivered chunk.
#[derive(Debug, Default)]
pub(super) struct DeliveryResult {
    pub(super) accepted: u64,
    pub(super) expired: u64,
    /// Visits that no retry can write.
    pub(super) rejected: u64,
    /// Their errors.
    pub(super) errors: Vec<LineError>,
}

/// Why a chunk was not delivered completely.
#[derive(Debug)]
pub(super) enum DeliveryFailure {
    /// A retry may succeed, after a delay if the target asks for one.
    Transient { why: String, retry_after: Option<Duration> },
    /// No retry can succeed.
    Permanent(String),
}
