//! Many segments at once: lists of those that somebody is in, and the counts of some.

mod list;
mod ranking;
mod walk;

pub use self::list::{CountedSegment, List, ListCursor, ListQuery, Order};
pub(super) use self::ranking::Rankings;
