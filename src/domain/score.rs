//! The score of a member: the time of the user's last visit, as exact as Redis stores it.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, SecondsFormat};

use super::Timestamp;

/// Unix seconds, as an IEEE 754 double. This service writes whole milliseconds. Other programs may write finer times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(f64);

impl Score {
    /// Returns the score that Redis reports as `seconds`, which is never NaN.
    #[must_use]
    pub fn from_unix_seconds(seconds: f64) -> Self {
        // To Redis, -0 is 0.
        Self(seconds + 0.0)
    }

    /// Parses an RFC 3339 time. Reads what `Display` writes: the same score, for every time since 1971.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        let nanos = time.timestamp_subsec_nanos();
        if nanos.is_multiple_of(1_000_000) {
            return Some(Timestamp::from_millis(time.timestamp_millis()).into());
        }
        // Doubles of these years are 119 ns apart or more, so that rounding twice does no harm.
        Some(Self::from_unix_seconds(time.timestamp() as f64 + f64::from(nanos) / 1e9))
    }

    /// Returns Unix seconds.
    #[must_use]
    pub fn as_unix_seconds(self) -> f64 {
        self.0
    }

    /// Returns the time, rounded to a millisecond.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_unix_seconds(self.0)
    }

    /// Returns whether it is a time in the years 0 to 9999, which RFC 3339 has. If not, [`Self::timestamp`] is another
    /// time.
    #[must_use]
    pub fn is_time(self) -> bool {
        (Self::from(Timestamp::EARLIEST)..=Self::from(Timestamp::LATEST)).contains(&self)
    }

    /// Returns whether it is a whole number of milliseconds.
    #[must_use]
    pub fn is_whole_millis(self) -> bool {
        Self::from(self.timestamp()) == self
    }
}

impl From<Timestamp> for Score {
    fn from(time: Timestamp) -> Self {
        Self::from_unix_seconds(time.as_score())
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// RFC 3339 in UTC, with milliseconds. A finer time has nine digits, which are never later than the score.
impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.floor();
        // `as` saturates.
        let nanos = ((self.0 - seconds) * 1e9) as u32;
        match DateTime::from_timestamp(seconds as i64, nanos) {
            Some(time) if self.is_time() && !self.is_whole_millis() => {
                f.write_str(&time.to_rfc3339_opts(SecondsFormat::Nanos, true))
            }
            _ => self.timestamp().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole_seconds(1_795_341_600.0, "2026-11-22T10:00:00.000Z")]
    #[case::milliseconds(1_795_341_600.007, "2026-11-22T10:00:00.007Z")]
    #[case::finer(1_795_341_600.000_25, "2026-11-22T10:00:00.000250101Z")]
    #[case::half_a_millisecond(1_795_341_600.000_5, "2026-11-22T10:00:00.000499963Z")]
    #[case::before_the_epoch(-0.25, "1969-12-31T23:59:59.750Z")]
    #[case::negative_zero(-0.0, "1970-01-01T00:00:00.000Z")]
    #[case::year_10000(253_402_300_800.0, "9999-12-31T23:59:59.999Z")]
    #[case::far_future(1e300, "9999-12-31T23:59:59.999Z")]
    #[case::endless(f64::INFINITY, "9999-12-31T23:59:59.999Z")]
    #[case::far_past(f64::NEG_INFINITY, "0000-01-01T00:00:00.000Z")]
    fn display_has_the_digits_that_the_score_needs(#[case] seconds: f64, #[case] expected: &str) {
        assert_eq!(Score::from_unix_seconds(seconds).to_string(), expected);
    }

    #[rstest]
    #[case::empty("")]
    #[case::date("2026-11-22")]
    #[case::unix_seconds("1795341600")]
    fn from_rfc3339_rejects_other_formats(#[case] text: &str) {
        assert_eq!(Score::from_rfc3339(text), None);
    }

    proptest! {
        #[test]
        fn from_rfc3339_reads_the_score_that_display_writes(
            seconds in prop_oneof![1e8..4e9_f64, (100_000_000_000_i64..4_000_000_000_000).prop_map(|ms| ms as f64 / 1e3)],
        ) {
            let score = Score::from_unix_seconds(seconds);
            prop_assert_eq!(Score::from_rfc3339(&score.to_string()), Some(score));
        }

        #[test]
        fn display_is_never_later_than_the_score(seconds in -6e10..2e11_f64) {
            let score = Score::from_unix_seconds(seconds);
            prop_assert!(Score::from_rfc3339(&score.to_string()).unwrap() <= score);
        }
    }
}
