//! The parameters of a run.

use std::path::PathBuf;

use crate::data::Order;
use crate::engine::Kind;

/// The parameters of all steps.
pub struct Plan {
    /// Numbers of pairs to load, in ascending order.
    pub pairs: Vec<u64>,
    /// The most pairs that are loaded into all engines. More are loaded into bounded segments alone.
    pub exact_pairs: u64,
    /// The order of the load.
    pub order: Order,
    /// The number of rounds.
    pub rounds: u32,
    /// The number of times that all segments are counted in a round.
    pub passes: u32,
    /// The seed of the pairs.
    pub seed: u64,
    /// The compared engines.
    pub engines: Vec<Kind>,
    /// The Redis server.
    pub redis_server: PathBuf,
    /// The Valkey server.
    pub valkey_server: PathBuf,
    /// The folder of all files, removed at the end.
    pub folder: PathBuf,
}

impl Plan {
    /// Returns the engines that get so many pairs.
    pub fn engines_of(&self, pairs: u64) -> Vec<Kind> {
        let gets = |kind: &Kind| pairs <= self.exact_pairs || *kind == Kind::Bounded;
        self.engines.iter().copied().filter(gets).collect()
    }
}
