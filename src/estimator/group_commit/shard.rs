//! One of the queues of a [`GroupCommit`](super::GroupCommit).

/// A shard, whose batches wait for no other shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub index: usize,
    /// How many shards are in use. They share the limit of pending requests.
    pub count: usize,
}

impl Shard {
    /// The shard of a [`GroupCommit`] that has one.
    pub const ONLY: Self = Self { index: 0, count: 1 };
    /// Requests that may be pending in a shard, however many shards share the limit.
    const MIN_PENDING: usize = 100;

    /// Returns how many requests may be pending in this shard if `max` may be in all.
    pub(super) fn max_pending(self, max: usize) -> usize {
        max.div_ceil(self.count).max(Self::MIN_PENDING.min(max))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_shard(10_000, 1, 10_000)]
    #[case::several(10_000, 8, 1_250)]
    #[case::rounded_up(10_001, 8, 1_251)]
    #[case::at_least_a_hundred(10_000, 1_024, 100)]
    #[case::never_more_than_all(50, 8, 50)]
    fn max_pending_shares_the_limit(#[case] max: usize, #[case] count: usize, #[case] expected: usize) {
        assert_eq!(Shard { index: 0, count }.max_pending(max), expected);
    }
}
