//! Background jobs: pruning, recording the history, and monitoring health.

mod health;
mod prune;
mod record_history;
mod schedule;
mod segment_meter;
mod segment_pattern;

pub use self::health::HealthMonitor;
pub use self::prune::{Pruner, PrunerError};
pub use self::record_history::HistoryRecorder;
pub use self::schedule::Schedule;
pub use self::segment_meter::SegmentMeter;
pub use self::segment_pattern::SegmentPattern;
