//! The ticks of sampling.

use std::fmt;
use std::time::Duration;

use crate::domain::{Timestamp, Window, parse_duration};

/// How often counts are sampled: a divisor of a day. Ticks are at its multiples since the Unix epoch, so that all
/// instances have the same ones, and a day starts with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(Window);

impl Interval {
    const DAY: u64 = 24 * 60 * 60;

    /// The default of the setting.
    pub const DEFAULT: Self = Self(Window::HOUR);

    /// Parses an interval such as `1h`, or `off` for `None`.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text == "off" {
            return Ok(None);
        }
        const EXAMPLES: &str = "1h or 15m, nor off";
        let window = Window::new(parse_duration(text, EXAMPLES)?);
        let window = window.map_err(|_| format!("is not a duration such as {EXAMPLES}"))?;
        if Self::DAY.is_multiple_of(window.as_secs()) {
            Ok(Some(Self(window)))
        } else {
            Err("must divide a day without a rest, such as 15m, 1h or 1d".to_owned())
        }
    }

    /// Returns the length.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.as_secs())
    }

    /// Returns the length in milliseconds.
    pub(super) fn millis(self) -> i64 {
        i64::try_from(self.0.as_secs() * 1_000).expect("it is not longer than a day")
    }

    /// Returns the last tick at or before `now`.
    #[must_use]
    pub fn tick(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis() - now.as_millis().rem_euclid(self.millis()))
    }

    /// Returns the deadline for sampling `tick`. A later count would not be true of the tick.
    #[must_use]
    pub fn deadline(self, tick: Timestamp) -> Timestamp {
        tick + self.duration() / 6
    }

    /// Returns how long an instance has the lease of a tick: a quarter of the time until the deadline.
    pub(super) fn lease(self) -> Duration {
        self.duration() / 24
    }

    /// Returns the pause between attempts to sample a tick: a twentieth of the time until the deadline.
    #[must_use]
    pub fn retry_pause(self) -> Duration {
        self.duration() / 120
    }
}

/// Formats the interval in one unit: `1h`, `15m`.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::an_hour("1h", "1h")]
    #[case::sixty_minutes("60m", "1h")]
    #[case::a_day("24h", "1d")]
    #[case::a_quarter_of_an_hour("15m", "15m")]
    #[case::a_second("1s", "1s")]
    fn parse_accepts_divisors_of_a_day(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(Interval::parse(text).unwrap().unwrap().to_string(), shown);
    }

    #[test]
    fn parse_reads_off_as_none() {
        assert_eq!(Interval::parse("off"), Ok(None));
        assert_eq!(Interval::parse("1h"), Ok(Some(Interval::DEFAULT)));
    }

    #[rstest]
    #[case::zero("0s", "is not a duration")]
    #[case::empty("", "is not a duration")]
    #[case::word("never", "is not a duration")]
    #[case::fraction_of_a_second("500ms", "is not a duration")]
    #[case::no_divisor_of_a_day("7h", "must divide a day")]
    #[case::longer_than_a_day("2d", "must divide a day")]
    fn parse_explains_a_rejection(#[case] text: &str, #[case] message: &str) {
        let error = Interval::parse(text).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }

    #[rstest]
    #[case::epoch(0, 0)]
    #[case::just_before_a_tick(3_599_999, 0)]
    #[case::at_a_tick(3_600_000, 3_600_000)]
    #[case::before_the_epoch(-1, -3_600_000)]
    fn tick_is_a_multiple_since_the_epoch(#[case] now: i64, #[case] tick: i64) {
        assert_eq!(Interval::DEFAULT.tick(Timestamp::from_millis(now)), Timestamp::from_millis(tick));
    }
}
