//! Hash sampling: the level of a user, and the depth of a segment that keeps a sample.

use xxhash_rust::xxh64::xxh64;

/// The level of a user: the number of leading zero bits of a hash of the user's id, at most [`Level::MAX`]. Half of all
/// users have level 0, a quarter level 1, and so on.
///
/// A segment of [`Depth`] k keeps the users of level k and above, which is one user of 2^k. The level of a user is the
/// same in every segment, so that samples can be intersected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// The highest level. One of 16,777,216 users has it.
    pub const MAX: Self = Self(24);

    /// The seed of the hash. It differs from that of the hash which decides the partition, so that the level of a user
    /// says nothing about the partition.
    const SEED: u64 = 0x6c65_7665_6c73;

    /// Returns the level of the user with this id: that of
    /// [XXH64](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) of the id's bytes with a fixed seed.
    ///
    /// The function must never change. Otherwise a user's old visits stay in one level, new ones go to another, and the
    /// user counts twice.
    #[must_use]
    pub fn of(user_id: &str) -> Self {
        let zeros = xxh64(user_id.as_bytes(), Self::SEED).leading_zeros();
        Self(u8::try_from(zeros).map_or(Self::MAX.0, |zeros| zeros.min(Self::MAX.0)))
    }

    /// Returns all levels in ascending order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        (0..Self::MAX.0 + 1).map(Self)
    }

    /// Returns the level with this number; `None` if it is too high.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// Returns its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// The depth of a segment: the lowest [`Level`] of the users that it keeps. A segment of depth 0 keeps all users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Depth(u8);

impl Depth {
    /// The depth of a segment that keeps all users.
    pub const ZERO: Self = Self(0);

    /// The highest depth.
    pub const MAX: Self = Self(Level::MAX.0);

    /// Returns the depth with this number; `None` if it is too high.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (number <= Level::MAX.0).then_some(Self(number))
    }

    /// Returns its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether users of `level` are kept.
    #[must_use]
    pub fn keeps(self, level: Level) -> bool {
        level.0 >= self.0
    }

    /// Returns the levels that are kept, in ascending order.
    pub fn levels(self) -> impl DoubleEndedIterator<Item = Level> + ExactSizeIterator + Clone {
        (self.0..Level::MAX.0 + 1).map(Level)
    }

    /// Returns the levels that are not kept, in ascending order.
    pub fn levels_below(self) -> impl DoubleEndedIterator<Item = Level> + ExactSizeIterator + Clone {
        (0..self.0).map(Level)
    }

    /// Returns the number of users that a kept one stands for: 2 to the power of the depth.
    #[must_use]
    pub fn weight(self) -> u64 {
        1 << self.0
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The expected levels come from the reference implementation (the Python binding `xxhash`).
    #[rstest]
    #[case::empty("", 1)]
    #[case::not_ascii("кино", 0)]
    #[case::even("u1", 0)]
    #[case::odd("u2", 1)]
    #[case::rare("u1195813", 19)]
    #[case::rarer("u1976217", 20)]
    fn level_counts_the_leading_zero_bits(#[case] user_id: &str, #[case] expected: u8) {
        assert_eq!(Level::of(user_id).number(), expected);
    }

    /// The numbers of users stay within four standard deviations, although the ids differ in few digits.
    #[rstest]
    #[case::numbers("", 1 << 20)]
    #[case::prefixed("u", 1 << 20)]
    fn levels_halve_the_users(#[case] prefix: &str, #[case] users: u32) {
        let mut of_level = [0_u32; 25];
        for user in 0..users {
            of_level[usize::from(Level::of(&format!("{prefix}{user}")).number())] += 1;
        }
        for (level, found) in of_level.iter().enumerate().take(12) {
            let share = 0.5_f64.powi(level as i32 + 1);
            let (expected, deviation) = (f64::from(users) * share, (f64::from(users) * share * (1.0 - share)).sqrt());
            assert!((f64::from(*found) - expected).abs() < 4.0 * deviation, "level {level}: {found} of {expected}");
        }
    }

    #[test]
    fn depth_keeps_its_level_and_those_above() {
        for depth in [Depth::ZERO, Depth(7), Depth(24)] {
            assert!(depth.levels().all(|level| depth.keeps(level)));
            assert!(!depth.levels_below().any(|level| depth.keeps(level)));
            assert_eq!(depth.levels_below().chain(depth.levels()).count(), Level::all().len());
        }
        assert_eq!(Depth(7).weight(), 128);
        assert_eq!((Depth::from_number(24), Depth::from_number(25)), (Some(Depth(24)), None));
    }
}
