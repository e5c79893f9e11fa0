//! Bounded segments: the depth of each segment, which decides the users that it keeps.
//!
//! A segment of a bounded [`KeySet`](super::KeySet) keeps all users until they are more than the bound. From then on,
//! it keeps the users of a [`Level`](crate::domain::Level) from its depth on, which are a random sample. The members of
//! each level have a key of their own, so that raising the depth unlinks a key and copies nothing.
//!
//! # The record
//!
//! Each partition has a hash `depths` with the [`SegmentDepth`] of each segment that keeps a sample. The index can't
//! have the depths as scores, because it is read in the order of names, and Redis defines `ZRANGE BYLEX` for equal
//! scores alone.
//!
//! # What instances know
//!
//! Each instance reads the depths every second. A visit of a level that is not written is acknowledged and costs Redis
//! nothing. Knowledge that is older than [`Depths::MAX_AGE`] drops nothing: the visit is written. A level that is
//! written although it isn't kept does no harm. Nobody counts it, and the next raise or prune deletes its key.
//!
//! A count reads the depths *behind* the members, in the same pipeline. A raise sets the depth and deletes the levels
//! below in one atomic script, so that a depth that is read last is right for what was counted before.
//!
//! # Raising and falling
//!
//! An instance that has added a sixteenth of the bound to a segment, or a quarter of the room that is left, checks how
//! many members the segment has, and raises its depth if they are more than the bound. A prune lowers the depth of a
//! segment that has less than a quarter of it. The lower levels are written at once, by every instance after
//! [`Depths::MAX_AGE`]. Members that were last seen since then have the lower depth, and earlier ones the higher.
//!
//! # Replicas
//!
//! If writes wait for replicas, so does the read of the depths, and an instance doesn't use its own raise before it. So
//! no visit is dropped because of a depth that a failover may revoke. Otherwise a failover may lose a raise, and the
//! visits that were dropped because of it, as it may lose any acknowledged visit.

mod additions;
mod adjust;
mod count;
mod delete;
pub(super) mod depths;
mod fill;
mod inherit;
mod known;
pub(super) mod max_members;
mod raise;
mod read;
mod refresh;
pub(super) mod segment_depth;
mod segment_sample;

pub(super) use self::depths::Depths;
