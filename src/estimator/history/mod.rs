//! The history of a segment: its count is sampled at every tick of an interval, and read in steps of time. A missing
//! sample is a gap, not a zero.

mod interval;
mod points;
mod sampler;

pub use self::interval::Interval;
pub use self::points::{History, Point};
pub use self::sampler::{HistorySampler, SampleOutcome};
