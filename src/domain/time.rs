//! Points in time and the window, in milliseconds. Only [`Timestamp::now`] reads a clock; the service calls it through
//! [`Clock`](crate::estimator::clock::Clock).

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z (Unix time), without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The start of the year 0. RFC 3339 has no earlier times.
    pub(super) const EARLIEST: Self = Self(-62_167_219_200_000);
    /// The end of the year 9999. RFC 3339 has no later times.
    pub(super) const LATEST: Self = Self(253_402_300_799_999);

    /// Reads the system clock. The callers are [`Clock`](crate::estimator::clock::Clock) and the command that makes
    /// tokens; everything else takes `now` as an argument.
    #[must_use]
    pub fn now() -> Self {
        Self::from_millis(Utc::now().timestamp_millis())
    }

    /// Returns the time `millis` milliseconds after the Unix epoch, clamped to the years 0 to 9999.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis > Self::LATEST.0 {
            Self::LATEST
        } else if millis < Self::EARLIEST.0 {
            Self::EARLIEST
        } else {
            Self(millis)
        }
    }

    /// Returns the time `seconds` after the Unix epoch, rounded to a millisecond and clamped to the years 0 to 9999.
    #[must_use]
    pub fn from_unix_seconds(seconds: f64) -> Self {
        // `as` saturates.
        Self::from_millis((seconds * 1000.0).round() as i64)
    }

    /// As [`Self::from_unix_seconds`], for a number that a caller gives.
    ///
    /// # Errors
    ///
    /// A predicate if the number is one of milliseconds. Those since 1973 are larger than 1e11, and as seconds this is
    /// the year 5138, which is no plausible time.
    pub(crate) fn from_given_seconds(seconds: f64) -> Result<Self, &'static str> {
        const YEAR_5138: f64 = 1e11;
        if seconds > YEAR_5138 {
            Err("is too large: Unix time is in seconds here, not in milliseconds")
        } else {
            Ok(Self::from_unix_seconds(seconds))
        }
    }

    /// Parses an RFC 3339 time, such as `2026-11-22T10:00:00Z` or `2026-11-22T11:00:00.250+01:00`, truncated to a
    /// millisecond.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self::from_millis(time.timestamp_millis()))
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the time as the score of a sorted set: Unix seconds, with milliseconds as the fraction.
    ///
    /// Redis stores scores as IEEE 754 doubles. Until the year 9999, different milliseconds have different doubles in
    /// the same order, so comparing scores compares times exactly.
    #[must_use]
    pub fn as_score(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(saturating_millis(rhs)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(saturating_millis(rhs)))
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-22T10:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// How long a user counts in a segment after the last visit: a whole number of seconds, from one second to a century.
///
/// The record of a data set has it in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct Window(Duration);

impl Window {
    /// An hour.
    pub(crate) const HOUR: Self = Self(Duration::from_secs(60 * 60));
    /// The default of the setting `window`, and the window of a data set whose record has none.
    pub(crate) const DEFAULT: Self = Self(Duration::from_secs(14 * 24 * 60 * 60));
    const MAX: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

    /// Parses a window such as `14d`, `36h` or `1h 30m`.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting or parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::new(parse_duration(text, "14d, 36h or 1h 30m")?)
    }

    /// Creates a window of `duration`.
    ///
    /// # Errors
    ///
    /// As [`Window::parse`], if `duration` is zero, has a fraction of a second, or is longer than a century.
    pub fn new(duration: Duration) -> Result<Self, String> {
        if duration.is_zero() {
            Err("must be longer than zero".to_owned())
        } else if duration.subsec_nanos() != 0 {
            Err("must be a whole number of seconds".to_owned())
        } else if duration > Self::MAX {
            Err("must not be longer than 36500 days".to_owned())
        } else {
            Ok(Self(duration))
        }
    }

    /// Returns the length in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Returns the length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Returns the start of the window at `now`. Members seen after it count; members seen at or before it have
    /// expired.
    #[must_use]
    pub fn cutoff(self, now: Timestamp) -> Timestamp {
        now - self.0
    }
}

impl From<Window> for u64 {
    fn from(window: Window) -> Self {
        window.as_secs()
    }
}

impl TryFrom<u64> for Window {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        Self::new(Duration::from_secs(seconds))
    }
}

/// Formats the window in one unit, `14d`, `36h`, `90m`, unless that takes more than three digits: `1d3h46m40s`. There
/// are no spaces, so that it is one word in a shell and in a URL.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 60 * 60;
        const UNITS: [(u64, &str); 4] = [(DAY, "d"), (60 * 60, "h"), (60, "m"), (1, "s")];
        let seconds = self.as_secs();
        let whole = UNITS.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
        if let Some((unit, name)) = whole
            && (unit == DAY || seconds / unit < 1_000)
        {
            return write!(f, "{}{name}", seconds / unit);
        }
        let mut rest = seconds;
        for (unit, name) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
            }
            rest %= unit;
        }
        Ok(())
    }
}

/// Reads a duration such as `14d` or `1h 30m`; `examples` are those of the error. Months and years are refused: they
/// have no fixed length, and `14M` is one key away from `14m`.
///
/// # Errors
///
/// A sentence that says what is wrong with `text`, to be read after the name of the setting or parameter.
pub(crate) fn parse_duration(text: &str, examples: &str) -> Result<Duration, String> {
    const OF_THE_CALENDAR: [&str; 8] = ["months", "month", "M", "years", "year", "yrs", "yr", "y"];
    #[expect(clippy::disallowed_methods, reason = "months and years are refused")]
    let duration = humantime::parse_duration(text).map_err(|_| format!("is not a duration such as {examples}"))?;
    if text.split(|char: char| !char.is_ascii_alphabetic()).any(|unit| OF_THE_CALENDAR.contains(&unit)) {
        return Err(
            "is in months or years, which differ in length: give it in days, such as 30d; minutes are m".to_owned()
        );
    }
    Ok(duration)
}

fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::utc("2026-11-22T10:00:00Z", 1_795_341_600_000)]
    #[case::offset("2026-11-22T11:00:00.250+01:00", 1_795_341_600_250)]
    #[case::finer_than_a_millisecond("2026-11-22T10:00:00.0009Z", 1_795_341_600_000)]
    #[case::before_the_epoch("1969-12-31T23:59:59Z", -1_000)]
    fn from_rfc3339_truncates_to_the_millisecond(#[case] text: &str, #[case] millis: i64) {
        assert_eq!(Timestamp::from_rfc3339(text), Some(Timestamp(millis)));
    }

    #[rstest]
    #[case::date("2026-11-22")]
    #[case::no_offset("2026-11-22T10:00:00")]
    #[case::unix_seconds("1763805600")]
    #[case::word("yesterday")]
    fn from_rfc3339_rejects_other_formats(#[case] text: &str) {
        assert_eq!(Timestamp::from_rfc3339(text), None);
    }

    #[rstest]
    #[case::seconds(1_763_805_600.0, 1_763_805_600_000)]
    #[case::milliseconds(1_763_805_600.123, 1_763_805_600_123)]
    #[case::before_the_epoch(-0.5, -500)]
    #[case::far_future(1e300, Timestamp::LATEST.0)]
    #[case::far_past(-1e300, Timestamp::EARLIEST.0)]
    fn from_unix_seconds_rounds_to_the_millisecond(#[case] seconds: f64, #[case] millis: i64) {
        assert_eq!(Timestamp::from_unix_seconds(seconds), Timestamp(millis));
    }

    #[test]
    fn display_is_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp(1_795_341_600_007).to_string(), "2026-11-22T10:00:00.007Z");
        assert_eq!(Timestamp::EARLIEST.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::LATEST.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[rstest]
    #[case::days("14d", 14 * 24 * 60 * 60)]
    #[case::seconds("4s", 4)]
    #[case::compound("1h 30m", 5_400)]
    fn window_parse_reads_a_duration(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(Window::parse(text).map(Window::as_secs), Ok(seconds));
    }

    #[rstest]
    #[case::hours_of_whole_days("336h", "14d")]
    #[case::hours("36h", "36h")]
    #[case::compound("1h 30m", "90m")]
    #[case::seconds("61s", "61s")]
    #[case::a_century("36500d", "36500d")]
    #[case::three_digits("16h 39m", "999m")]
    #[case::four_digits("1000m", "16h40m")]
    #[case::of_all_units("36820224s", "426d3h50m24s")]
    #[case::a_day_and_a_second("86401s", "1d1s")]
    fn window_display_is_short_and_round_trips(#[case] text: &str, #[case] shown: &str) {
        let window = Window::parse(text).unwrap();
        assert_eq!(window.to_string(), shown);
        assert_eq!(Window::parse(shown), Ok(window));
    }

    #[rstest]
    #[case::zero("0s", "must be longer than zero")]
    #[case::fraction_of_a_second("1500ms", "must be a whole number of seconds")]
    #[case::longer_than_a_century("36501d", "must not be longer than 36500 days")]
    #[case::no_unit("14", "is not a duration such as 14d, 36h or 1h 30m")]
    #[case::empty("", "is not a duration such as 14d, 36h or 1h 30m")]
    fn window_parse_explains_a_rejection(#[case] text: &str, #[case] message: &str) {
        assert_eq!(Window::parse(text), Err(message.to_owned()));
    }

    proptest! {
        #[test]
        fn as_score_keeps_the_order_of_milliseconds(millis in Timestamp::EARLIEST.0..Timestamp::LATEST.0) {
            let (earlier, later) = (Timestamp(millis), Timestamp(millis + 1));
            prop_assert!(earlier.as_score() < later.as_score());
            prop_assert_eq!(Timestamp::from_unix_seconds(later.as_score()), later);
        }

        #[test]
        fn as_score_round_trips_as_text(millis in Timestamp::EARLIEST.0..Timestamp::LATEST.0) {
            let score = Timestamp(millis).as_score();
            prop_assert_eq!(score.to_string().parse::<f64>(), Ok(score));
        }
    }
}
