//! When the turns of sampling are.

use std::fmt;
use std::time::Duration;

use crate::domain::{Timestamp, Window};

/// How often counts are sampled: a part of a day. Turns are at its multiples since the Unix epoch, so that all services have
/// the same ones, and a day begins with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(Window);

impl Interval {
    const DAY: u64 = 24 * 60 * 60;

    /// The default.
    pub const DEFAULT: Self = Self(Window::HOUR);

    /// Reads an interval such as `1h`, or `off`, which is none.
    ///
    /// # Errors
    ///
    /// A sentence without its subject.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text == "off" {
            return Ok(None);
        }
        let window = Window::parse(text).map_err(|_| "is not a duration such as 1h or 15m, nor off".to_owned())?;
        if Self::DAY.is_multiple_of(window.as_secs()) {
            Ok(Some(Self(window)))
        } else {
            Err("must divide a day without a rest, such as 15m, 1h or 1d".to_owned())
        }
    }

    /// How long it is.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.as_secs())
    }

    /// How long it is, in milliseconds.
    pub(super) fn millis(self) -> i64 {
        i64::try_from(self.0.as_secs() * 1_000).expect("it is not longer than a day")
    }

    /// The last turn at or before `now`.
    #[must_use]
    pub fn turn(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis() - now.as_millis().rem_euclid(self.millis()))
    }

    /// For how long a turn may be taken: a count that is taken later is not that turn's any more.
    #[must_use]
    pub fn grace(self) -> Duration {
        self.duration() / 6
    }
}

/// As people write it: `1h`, `15m`.
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
    #[case("1h", "1h")]
    #[case("60m", "1h")]
    #[case("24h", "1d")]
    #[case("15m", "15m")]
    #[case("1s", "1s")]
    fn an_interval_is_a_part_of_a_day(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(Interval::parse(text).unwrap().unwrap().to_string(), shown);
    }

    #[test]
    fn off_is_none() {
        assert_eq!(Interval::parse("off"), Ok(None));
        assert_eq!(Interval::parse("1h"), Ok(Some(Interval::DEFAULT)));
    }

    #[rstest]
    #[case("0s", "is not a duration")]
    #[case("", "is not a duration")]
    #[case("never", "is not a duration")]
    #[case("500ms", "is not a duration")]
    #[case("7h", "must divide a day")]
    #[case("2d", "must divide a day")]
    fn a_bad_interval_says_why(#[case] text: &str, #[case] message: &str) {
        let error = Interval::parse(text).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }

    #[rstest]
    #[case(0, 0)]
    #[case(3_599_999, 0)]
    #[case(3_600_000, 3_600_000)]
    #[case(-1, -3_600_000)]
    fn a_turn_is_at_a_multiple_since_the_epoch(#[case] now: i64, #[case] turn: i64) {
        assert_eq!(Interval::DEFAULT.turn(Timestamp::from_millis(now)), Timestamp::from_millis(turn));
    }
}
