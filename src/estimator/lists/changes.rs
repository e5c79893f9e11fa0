//! How the count of a segment has changed, by its samples.

use std::time::Duration;

use crate::domain::{Estimate, Timestamp, Window};
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
    pub before: Estimate,
    /// The later count.
    pub after: Estimate,
    /// The time of the earlier count.
    pub from: Timestamp,
    /// The time of the later count.
    pub to: Timestamp,
}

impl Change {
    /// Returns the difference of the counts.
    #[must_use]
    pub fn absolute(self) -> i64 {
        i64::try_from(i128::from(self.after.count()) - i128::from(self.before.count())).unwrap_or(i64::MAX)
    }

    /// Returns the difference as a share of the earlier count; `None` if that is 0.
    #[must_use]
    pub fn relative(self) -> Option<f64> {
        let before = self.before.count();
        (before > 0).then(|| self.absolute() as f64 / before as f64)
    }

    /// Returns the difference, or 0 if it is within the error of the counts.
    pub(super) fn beyond_error(self) -> i64 {
        if self.difference().exceeds_error() { self.absolute() } else { 0 }
    }

    /// Returns the difference without its sign, with its error.
    #[must_use]
    pub fn difference(self) -> Estimate {
        self.before.difference(self.after)
    }
}

impl Changes {
    /// How old the last sample may be. Samples are at most a day apart and may be taken hours late.
    const MAX_AGE: Duration = Duration::from_secs(36 * 60 * 60);

    /// How far the last sample may be ahead of `now`, by the difference between two clocks. A sample from further ahead
    /// was taken before a clock was set back.
    const MAX_AHEAD: Duration = Duration::from_secs(60);

    /// Returns the changes of `record` over the configured `window` at `now`. After a long time without samples, and
    /// until the first sample after a change of the window, the changes are unknown.
    pub(super) fn of(record: ChangeRecord, window: Window, now: Timestamp) -> Self {
        let ChangeRecord { last, first, day_before, week_before, window: sampled } = record;
        let is_recent = last.at + Self::MAX_AGE >= now && last.at <= now + Self::MAX_AHEAD;
        let is_of_window = sampled.is_none_or(|sampled| sampled.window == window);
        let since = |before: Option<Sample>| {
            let before = before.filter(|_| is_recent && is_of_window)?;
            Some(Change { before: before.count, after: last.count, from: before.at, to: last.at })
        };
        Self {
            day: since(day_before),
            week: since(week_before),
            first_sampled_at: Some(first),
            last_sample: Some(last),
        }
    }

    /// Returns the changes of a segment that has no users at `now`: those to 0, also if it was pruned before a sample
    /// of 0.
    pub(super) fn to_zero(self, now: Timestamp) -> Self {
        let to_zero = |change: Change| match change.after.count() {
            0 => change,
            _ => Change { after: Estimate::exact(0), to: now, ..change },
        };
        Self { day: self.day.map(to_zero), week: self.week.map(to_zero), ..self }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Depth;
    use crate::store::SampledWindow;

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
        let time = Timestamp::from_millis(0);
        let change = Change { before: before.into(), after: after.into(), from: time, to: time };
        assert_eq!((change.absolute(), change.relative()), (absolute, relative));
    }

    #[test]
    fn change_within_its_error_ranks_as_none() {
        let time = Timestamp::from_millis(0);
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let change = |after| Change { before: estimate(40_000), after: estimate(after), from: time, to: time };
        assert_eq!([39_900, 40_100, 44_000].map(|after| change(after).beyond_error()), [0, 0, 512_000]);
    }

    #[test]
    fn changes_are_unknown_after_a_long_time_without_samples() {
        let at = Timestamp::from_millis(2 * 86_400_000);
        let last = Sample { at, count: 3.into() };
        let before = Sample { at: at - Duration::from_secs(86_400), count: 2.into() };
        let window = Window::DEFAULT;
        let sampled = Some(SampledWindow { window, since: None });
        let record =
            ChangeRecord { last, first: before.at, day_before: Some(before), week_before: None, window: sampled };
        let change = Change { before: 2.into(), after: 3.into(), from: before.at, to: at };
        for now in [at - Changes::MAX_AHEAD, at + Changes::MAX_AGE] {
            let recent = Changes::of(record, window, now);
            assert_eq!((recent.day, recent.week), (Some(change), None));
        }
        let moment = Duration::from_millis(1);
        for now in [at - Changes::MAX_AHEAD - moment, at + Changes::MAX_AGE + moment] {
            let old = Changes::of(record, window, now);
            assert_eq!((old.day, old.first_sampled_at, old.last_sample), (None, Some(before.at), Some(last)));
        }
    }
}
