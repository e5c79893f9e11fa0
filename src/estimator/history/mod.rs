//! A segment's size over time: its count is sampled at every turn of an interval, and read again in steps.
//!
//! Where nothing was sampled there is nothing: a gap is a gap, and not a zero.

mod interval;
mod points;
mod sampler;

pub use self::interval::Interval;
pub use self::points::{History, Point};
pub use self::sampler::{HistorySampler, SampleOutcome};
