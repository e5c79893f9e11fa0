//! The nouns of the service: segments, users, visits, points in time and the window. Each is parsed once and valid ever after. No I/O.

mod time;
mod visit;
pub mod visit_json;

pub(crate) use self::time::parse_duration;
pub use self::time::{Timestamp, Window};
pub use self::visit::{FieldError, SegmentName, UserId, Visit};
