//! Which members of a segment are listed.

use crate::domain::{SegmentName, Window};
use crate::store::Member;

/// Which members of a segment are listed.
#[derive(Debug, Clone)]
pub struct MembersQuery {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// Members that were seen within this window.
    pub window: Window,
    /// The member after which the list begins. It need not exist.
    pub from: Option<Member>,
    /// The most members; all if `None`.
    pub limit: Option<usize>,
    /// Whether a segment that keeps a sample is listed.
    pub accepts_sample: bool,
}
