//! Limits on the use of Redis.

use std::time::Duration;

/// Timeouts, and the length of the queues.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Timeout for connecting, the handshake included.
    pub connect: Duration,
    /// Timeout for an answer, which includes connecting and following redirections.
    pub answer: Duration,
    /// Maximum number of visits that wait for the next batch, and of counts.
    pub max_pending: usize,
}
