//! How long a batch is parsed before its task yields. A piece may have tens of thousands of lines.

use std::time::{Duration, Instant};

/// Tells when the task of a batch should yield.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    /// Visits and lines since the clock was last read.
    parsed: u64,
}

impl Pace {
    const MAX_RUN: Duration = Duration::from_millis(1);
    /// Reading the clock takes as long as a blank line, or several empty ones.
    pub(super) const PARSED_PER_CLOCK_READ: u64 = 64;

    pub(super) fn start() -> Self {
        Self { since: Instant::now(), parsed: 0 }
    }

    /// Counts `parsed` visits or lines. Returns whether the task should yield, and starts again if so.
    pub(super) fn is_over(&mut self, parsed: u64) -> bool {
        self.parsed += parsed;
        if self.parsed < Self::PARSED_PER_CLOCK_READ {
            return false;
        }
        self.parsed = 0;
        let is_over = self.since.elapsed() >= Self::MAX_RUN;
        if is_over {
            self.since = Instant::now();
        }
        is_over
    }
}
