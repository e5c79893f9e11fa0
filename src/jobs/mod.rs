//! Background jobs: pruning, recording the history, and monitoring health.

mod health;
mod prune;
mod record_history;

pub use self::health::HealthMonitor;
pub use self::prune::{Pruner, PrunerError, Schedule};
pub use self::record_history::HistoryRecorder;
