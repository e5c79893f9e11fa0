//! Background jobs: pruning, recording the history, and monitoring health.

mod health;
mod prune;
mod record_history;
mod schedule;

pub use self::health::HealthMonitor;
pub use self::prune::{Pruner, PrunerError};
pub use self::record_history::HistoryRecorder;
pub use self::schedule::Schedule;
