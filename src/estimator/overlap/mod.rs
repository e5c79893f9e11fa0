//! Who is in both? The exact number of users in any of several segments, in all of them, and in each pair.
//!
//! Redis could intersect two sorted sets itself, and would do nothing else for as long as that takes. So members are read in
//! slices, and joined here, partition by partition: a user is in one of them alone. `join.rs` has the joining, in bounded memory.
//!
//! # What is counted
//!
//! Whoever was in a segment at the start of the read, and is not deleted or pruned meanwhile, counts in it, once: a visit
//! that is repeated during the read moves its user to the end of the set, where he is met again, and the join knows him. Who comes
//! during the read counts if the read meets him. All figures of an answer are of the same read, so they always agree with
//! each other. A read comes to its end as long as it is faster than the visits, of which it meets every one that moves somebody to
//! the end; if it isn't, the deadline ends it.

mod join;
mod mask_counts;
mod overlaps;

pub use self::mask_counts::{Overlap, Pair};
pub use self::overlaps::{OverlapError, OverlapLimits, Overlaps};
