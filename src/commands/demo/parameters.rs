//! The parameters of a generated population.

use std::time::Duration;

use crate::estimator::history::Interval;

/// The size of a population, and the seed of its random numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demo {
    pub(super) segments: usize,
    /// The number of users of all segments together.
    pub(super) users: usize,
    /// The seed of the random numbers. The same seed generates the same population, relative to the time.
    pub(super) seed: u64,
    /// The interval between two points of a history.
    pub(super) interval: Interval,
}

impl Demo {
    /// The length of the histories.
    pub(super) const HISTORY: Duration = Duration::from_secs(14 * 24 * 60 * 60);
}
