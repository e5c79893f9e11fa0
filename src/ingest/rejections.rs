//! The limit on rejected lines of a batch. A line counts as many times as it has visits, and once if it is rejected.
//!
//! A rejected line costs the service as much as a visit, but costs its sender almost nothing: three million invalid
//! lines compress to six kilobytes. A sender with a mistake in every line also learns of it sooner.

/// Counts the rejected lines of a batch.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    /// Consecutive lines that are not valid.
    in_a_row: u64,
    /// Consecutive visits that the store refused.
    refused_in_a_row: u64,
    /// Visits and rejected lines of the current block, and how many of both were rejected.
    all: u64,
    rejected: u64,
    are_too_many: bool,
}

impl Rejections {
    /// The limit on consecutive rejected lines.
    pub(super) const MAX_IN_A_ROW: u64 = 10_000;
    /// The visits and rejected lines of a block. At most half of them may be rejected.
    pub(super) const BLOCK: u64 = 100_000;

    /// Counts a line of `visits`.
    pub(super) fn read(&mut self, visits: u64) {
        self.in_a_row = 0;
        self.advance(visits);
    }

    /// Counts a line that is not valid.
    pub(super) fn reject(&mut self) {
        self.rejected += 1;
        self.in_a_row += 1;
        self.are_too_many |= self.in_a_row >= Self::MAX_IN_A_ROW;
        self.advance(1);
    }

    fn advance(&mut self, count: u64) {
        self.all += count;
        if self.all >= Self::BLOCK {
            self.are_too_many |= self.rejected > self.all / 2;
            (self.all, self.rejected) = (0, 0);
        }
    }

    /// Counts the visits of a chunk that were accepted, and those that were refused permanently.
    pub(super) fn written(&mut self, accepted: u64, refused: u64) {
        self.rejected += refused;
        self.refused_in_a_row = if accepted == 0 { self.refused_in_a_row + refused } else { 0 };
        self.are_too_many |= self.refused_in_a_row >= Self::MAX_IN_A_ROW;
    }

    /// Returns whether a limit is exceeded.
    pub(super) fn are_too_many(&self) -> bool {
        self.are_too_many
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Returns the line at which too many are rejected, or `None` if it isn't in the first million.
    fn read_until(is_rejected: impl Fn(u64) -> bool) -> Option<u64> {
        let mut rejections = Rejections::default();
        (1..=1_000_000).find(|line| {
            if is_rejected(*line) {
                rejections.reject()
            } else {
                rejections.read(1)
            }
            rejections.are_too_many()
        })
    }

    #[rstest]
    #[case::all(|_| true, Some(10_000))]
    #[case::all_behind_good_ones(|line| line > 500_000, Some(510_000))]
    #[case::a_good_one_now_and_then(|line| line % 10_000 != 0, Some(100_000))]
    #[case::more_than_half(|line| line % 2 == 1 || line == 2, Some(100_000))]
    #[case::half(|line| line % 2 == 1, None)]
    #[case::one_in_three(|line| line % 3 == 0, None)]
    #[case::none(|_| false, None)]
    #[case::most_of_a_later_block(|line| (300_000..400_000).contains(&line) && line % 9_999 != 0, Some(400_000))]
    fn read_limits_consecutive_rejections_and_those_of_a_block(
        #[case] is_rejected: fn(u64) -> bool,
        #[case] expected: Option<u64>,
    ) {
        assert_eq!(read_until(is_rejected), expected);
    }

    #[test]
    fn read_counts_each_visit_of_a_line() {
        let mut rejections = Rejections::default();
        for _ in 0..1_000 {
            rejections.read(100);
            rejections.written(40, 60);
        }
        assert!(rejections.are_too_many(), "60,000 of 100,000 visits were refused");
        let mut rejections = Rejections::default();
        for _ in 0..2_000 {
            rejections.read(100);
            rejections.written(60, 40);
            rejections.reject();
        }
        assert!(!rejections.are_too_many(), "80,000 of 200,000 visits were refused, and 2,000 lines rejected");
    }

    #[test]
    fn written_counts_refused_visits() {
        let mut rejections = Rejections::default();
        rejections.written(0, 9_999);
        rejections.written(1, 8_000);
        rejections.written(0, 9_999);
        assert!(!rejections.are_too_many(), "some were accepted in between");
        rejections.written(0, 1);
        assert!(rejections.are_too_many());
    }
}
