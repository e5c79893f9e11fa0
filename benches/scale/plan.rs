//! What a run is asked to do: with how much, how often, on what, and where.

use std::path::PathBuf;

use crate::data::Order;
use crate::engine::Kind;

/// What all steps are given.
pub struct Plan {
    /// Pairs that are loaded, the fewest first.
    pub pairs: Vec<u64>,
    /// In which order they are.
    pub order: Order,
    /// How often all of it is done.
    pub rounds: u32,
    /// How often all segments are counted in a round.
    pub passes: u32,
    /// What the pairs are made from.
    pub seed: u64,
    /// What is compared.
    pub engines: Vec<Kind>,
    /// The Redis server.
    pub redis_server: PathBuf,
    /// The Valkey server.
    pub valkey_server: PathBuf,
    /// Everything is written here, and removed at the end.
    pub folder: PathBuf,
}
