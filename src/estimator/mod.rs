//! The service without HTTP: records visits, estimates segments, lists and compares them, and prunes expired members.

mod bulk;
pub mod clock;
mod concurrency_limit;
mod error;
#[expect(clippy::module_inception, reason = "the file is named after its type, as the others are")]
mod estimator;
mod group_commit;
mod histogram;
pub mod history;
mod known;
mod lists;
mod members;
mod names;
pub mod overlap;
mod prune;
mod segments;
mod users;

pub use self::bulk::BulkPermit;
pub use self::error::{CostlyReads, Error, TooMany};
pub(crate) use self::estimator::measure_failure;
pub use self::estimator::{Estimator, Recorded};
pub use self::histogram::{Bucket, Histogram};
pub use self::lists::{Change, Changes, CountedSegment, List, ListCursor, ListQuery, NameFilter, Order, Position};
pub use self::members::{MemberList, MemberListError, MembersQuery, SegmentMember};
pub use self::prune::{PruneError, PruneReport};
pub use self::users::{IsMember, Membership, UserSegments};
