//! The maximum number of members of a segment.

use std::fmt;

use crate::store::partition::Partitions;

/// The maximum number of members that a segment keeps, of all its users: a power of two. A segment with more users
/// keeps a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxMembers(u32);

impl MaxMembers {
    /// The minimum, with a standard error of up to 4.4 %.
    pub const MIN: u32 = 1 << 10;
    /// The maximum, with a standard error of up to 0.035 %.
    pub const MAX: u32 = 1 << 24;
    /// Minimum number of members that a segment keeps in each partition. Otherwise a few partitions that keep nobody by
    /// chance would spoil the estimate.
    const MIN_PER_PARTITION: u32 = 64;

    /// Parses a maximum.
    ///
    /// # Errors
    ///
    /// What the number must be, as a predicate: `must be ...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let max = text.parse().ok().filter(|max: &u32| max.is_power_of_two() && (Self::MIN..=Self::MAX).contains(max));
        max.map(Self).ok_or_else(|| format!("must be a power of two from {} to {}", Self::MIN, Self::MAX))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns the maximum number of members of a segment in each of `partitions`.
    pub(crate) fn per_partition(self, partitions: Partitions) -> u32 {
        (self.0 / partitions.count() as u32).max(Self::MIN_PER_PARTITION)
    }
}

impl fmt::Display for MaxMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::min("1024", true)]
    #[case::recommended("65536", true)]
    #[case::max("16777216", true)]
    #[case::too_small("512", false)]
    #[case::too_large("33554432", false)]
    #[case::not_a_power_of_two("65535", false)]
    #[case::with_separator("65_536", false)]
    #[case::empty("", false)]
    fn parse_accepts_powers_of_two(#[case] text: &str, #[case] is_valid: bool) {
        assert_eq!(MaxMembers::parse(text).map(|max| max.to_string()).ok().as_deref(), is_valid.then_some(text));
    }

    #[rstest]
    #[case::one_partition("65536", "1", 65_536)]
    #[case::shared("65536", "64", 1_024)]
    #[case::at_least("1024", "64", 64)]
    fn per_partition_shares_the_maximum(#[case] max: &str, #[case] partitions: &str, #[case] expected: u32) {
        let partitions = Partitions::parse(partitions).unwrap();
        assert_eq!(MaxMembers::parse(max).unwrap().per_partition(partitions), expected);
    }
}
