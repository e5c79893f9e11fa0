//! What a run is asked to do: how often, how long, with how much, and where.

use std::path::PathBuf;

/// What all parts are given.
pub struct Plan {
    /// How often the contenders of a part take turns.
    pub rounds: u32,
    /// How long a contender is under load in a round.
    pub seconds: u64,
    pub sizes: Sizes,
    /// The Redis or Valkey server.
    pub redis_server: PathBuf,
    /// Another build of the service, to compare with.
    pub baseline: Option<PathBuf>,
    /// Everything is written here, and removed at the end.
    pub folder: PathBuf,
}

/// How much of everything.
pub struct Sizes {
    /// Prebuilt requests of a load.
    pub requests: usize,
    /// Lines of a batch that is timed.
    pub batch_lines: u64,
    /// Lines of the batch in which memory is watched.
    pub long_batch_lines: u64,
    /// Members of the segments that are counted.
    pub counted: u64,
    /// Members of the smallest and the largest segment that is counted.
    pub smallest_and_largest: [u64; 2],
    /// Expired members that are pruned.
    pub expired: u64,
    /// Members of each segment that overlaps with another.
    pub overlapping: u64,
    /// Pairs whose bytes are counted.
    pub pairs: u64,
}

impl Sizes {
    pub const FULL: Self = Self {
        requests: 300_000,
        batch_lines: 1_000_000,
        long_batch_lines: 10_000_000,
        counted: 50_000,
        smallest_and_largest: [1_000, 10_000_000],
        expired: 3_000_000,
        overlapping: 1_000_000,
        pairs: 1_000_000,
    };

    pub const QUICK: Self = Self {
        requests: 20_000,
        batch_lines: 50_000,
        long_batch_lines: 200_000,
        counted: 5_000,
        smallest_and_largest: [1_000, 100_000],
        expired: 200_000,
        overlapping: 20_000,
        pairs: 50_000,
    };
}
