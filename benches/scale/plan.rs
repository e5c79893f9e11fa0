//! The parameters of a run.

use std::path::PathBuf;

use crate::data::Order;
use crate::engine::Kind;

/// The parameters of all steps.
pub struct Plan {
    /// Numbers of pairs to load, in ascending order.
    pub pairs: Vec<u64>,
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
