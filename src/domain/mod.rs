//! The domain model: segments, users, visits, points in time and the window. Values are validated when they are parsed.
//! No I/O.

mod counted;
mod estimate;
mod sampling;
mod score;
mod time;
mod visit;
pub mod visit_json;
mod visits;

pub(crate) use self::counted::counted;
pub use self::estimate::Estimate;
pub use self::sampling::{Depth, Level};
pub use self::score::Score;
pub(crate) use self::time::parse_duration;
pub use self::time::{Timestamp, Window};
pub use self::visit::{FieldError, SegmentName, UserId, Visit};
pub use self::visits::{Segments, Visits};
