//! Lists of the segments that have users, and counts of several segments.

mod changes;
mod counting;
mod list;
mod ranking;
mod walk;

pub use self::changes::{Change, Changes};
pub use self::list::{CountedSegment, List, ListCursor, ListQuery, NameFilter, Order, Position};
pub(super) use self::ranking::Rankings;
