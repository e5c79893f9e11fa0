//! The errors of a list of members.

use crate::domain::{Depth, SegmentName};
use crate::store;

/// Why a list of members has no more members, although it isn't complete.
#[derive(Debug, thiserror::Error)]
pub enum MemberListError {
    /// The segment keeps a sample, and the query doesn't accept one.
    #[error("the segment {:?} keeps {}", .segment.as_str(), one_of(.depths))]
    Sampled {
        /// The segment.
        segment: SegmentName<'static>,
        /// The lowest and the highest depth of its partitions.
        depths: [Depth; 2],
    },
    /// The segment keeps fewer users than at the beginning of the list.
    #[error("the segment keeps a smaller sample since the list began; continue the list behind its last line")]
    SampleChanged,
    /// Redis failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Returns `one of 128 users`, or `one of 64 to 128 users` if partitions have different depths.
fn one_of(depths: &[Depth; 2]) -> String {
    match depths.map(Depth::weight) {
        [low, high] if low == high => format!("one of {high} users"),
        [low, high] => format!("one of {low} to {high} users"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::equal([7, 7], "the segment \"sports\" keeps one of 128 users")]
    #[case::different([0, 1], "the segment \"sports\" keeps one of 1 to 2 users")]
    fn sampled_shows_the_share_of_users(#[case] depths: [u8; 2], #[case] text: &str) {
        let depths = depths.map(|depth| Depth::from_number(depth).unwrap());
        let segment = SegmentName::parse("sports").unwrap();
        assert_eq!(MemberListError::Sampled { segment, depths }.to_string(), text);
    }
}
