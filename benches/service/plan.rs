//! The parameters of a run.

use std::path::PathBuf;

/// The parameters of all parts.
pub struct Plan {
    /// The number of rounds.
    pub rounds: u32,
    /// Seconds of load on each contender in a round.
    pub seconds: u64,
    pub sizes: Sizes,
    /// The Redis or Valkey server.
    pub redis_server: PathBuf,
    /// Another build of the service, to compare with.
    pub baseline: Option<PathBuf>,
    /// The folder of all files, removed at the end.
    pub folder: PathBuf,
}

/// The sizes of the parts.
pub struct Sizes {
    /// Prebuilt requests of a load.
    pub requests: usize,
    /// Lines of the timed batch.
    pub batch_lines: u64,
    /// Lines of the batch whose memory is sampled.
    pub long_batch_lines: u64,
    /// Members of the segments that are counted.
    pub counted: u64,
    /// Members of the smallest and the largest segment that is counted.
    pub smallest_and_largest: [u64; 2],
    /// Expired members that are pruned.
    pub expired: u64,
    /// Members of each segment that overlaps with another.
    pub overlapping: u64,
    /// Pairs whose memory is measured.
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
