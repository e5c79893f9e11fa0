//! How the count of a segment has changed, by its samples.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::{ChangeRecord, Sample};

/// The changes of a segment's count, by its samples. All of them are over the configured window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The change in the day before the last sample; `None` without a sample of that time.
    pub day: Option<Change>,
    /// The change in the week before the last sample; `None` without a sample of that time.
    pub week: Option<Change>,
    /// The time of the first sample; `None` before the first one.
    pub first_sampled_at: Option<Timestamp>,
    /// The last sample.
    pub last_sample: Option<Sample>,
}

/// A change of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The earlier count.
    pub before: u64,
    /// The later count.
    pub after: u64,
}

impl Change {
    /// Returns the difference of the counts.
    #[must_use]
    pub fn absolute(self) -> i64 {
        i64::try_from(i128::from(self.after) - i128::from(self.before)).unwrap_or(i64::MAX)
    }

    /// Returns the difference as a share of the earlier count; `None` if that is 0.
    #[must_use]
    pub fn relative(self) -> Option<f64> {
        (self.before > 0).then(|| self.absolute() as f64 / self.before as f64)
    }
}

impl Changes {
    /// How old the last sample may be. Samples are at most a day apart and may be taken hours late.
    const MAX_AGE: Duration = Duration::from_secs(36 * 60 * 60);

    /// Returns the changes of `record` at `now`. After a long time without samples, the changes are unknown.
    pub(super) fn of(record: ChangeRecord, now: Timestamp) -> Self {
        let ChangeRecord { last, first, day_before, week_before } = record;
        let is_recent = last.at + Self::MAX_AGE >= now;
        let since =
            |before: Option<u64>| before.filter(|_| is_recent).map(|before| Change { before, after: last.count });
        Self {
            day: since(day_before),
            week: since(week_before),
            first_sampled_at: Some(first),
            last_sample: Some(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::growth(4, 5, 1, Some(0.25))]
    #[case::decline(4, 1, -3, Some(-0.75))]
    #[case::none(4, 4, 0, Some(0.0))]
    #[case::to_zero(4, 0, -4, Some(-1.0))]
    #[case::from_zero(0, 4, 4, None)]
    fn relative_is_the_share_of_the_earlier_count(
        #[case] before: u64,
        #[case] after: u64,
        #[case] absolute: i64,
        #[case] relative: Option<f64>,
    ) {
        let change = Change { before, after };
        assert_eq!((change.absolute(), change.relative()), (absolute, relative));
    }

    #[test]
    fn changes_are_unknown_after_a_long_time_without_samples() {
        let at = Timestamp::from_millis(0);
        let last = Sample { at, count: 3 };
        let record = ChangeRecord { last, first: at, day_before: Some(2), week_before: None };
        let recent = Changes::of(record, at + Changes::MAX_AGE);
        assert_eq!((recent.day, recent.week), (Some(Change { before: 2, after: 3 }), None));
        let old = Changes::of(record, at + Changes::MAX_AGE + Duration::from_millis(1));
        assert_eq!((old.day, old.first_sampled_at, old.last_sample), (None, Some(at), Some(last)));
    }
}
