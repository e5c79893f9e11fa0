//! Overlaps: the exact number of users in any of several segments, in all of them, in each pair, and in exactly each
//! combination of them. Audiences add up such combinations.
//!
//! Redis could intersect sorted sets itself, but would serve nobody else in the meantime. Instead, members are read in
//! slices and joined here, in bounded memory. A user is in one partition, so partitions are joined one after another.
//!
//! # What is counted
//!
//! A user in a segment at the start of the read counts exactly once, unless deleted or pruned during the read. A visit
//! during the read moves its user to the end of the set, where the read finds the user again, and the join recognizes
//! them. A user whose first visit is during the read counts if the read reaches it. All figures of an answer come from
//! the same read, so they are consistent.
//!
//! The read ends if it is faster than the visits that move users to the end. Otherwise the deadline ends it.

mod audience;
mod error;
mod join;
mod mask_counts;
mod mask_estimates;
mod overlaps;
mod queue;
mod shared_reads;

pub use self::audience::{Audience, AudienceCount};
pub use self::error::OverlapError;
pub use self::mask_estimates::{Overlap, Pair, Region};
pub use self::overlaps::{OverlapLimits, Overlaps};
