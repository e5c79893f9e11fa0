//! Times in queries: absolute ones, dates, and times before now.

use std::time::Duration;

use crate::domain::{Timestamp, Window};

/// A time in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTime {
    /// An absolute time.
    At(Timestamp),
    /// A time before now.
    Ago(Duration),
}

impl QueryTime {
    /// Parses Unix seconds, an RFC 3339 time, a date, which is its midnight in UTC, or a duration before now: `-7d`.
    ///
    /// # Errors
    ///
    /// A predicate about the parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        const DATE: usize = "2026-11-22".len();
        // Far beyond seconds and milliseconds of any plausible time, it is no time.
        let number = text.parse().ok().filter(|number: &f64| (-1e11..1e15).contains(number));
        let seconds = number.map(Timestamp::from_given_seconds).transpose()?;
        let date = || Timestamp::from_rfc3339(&format!("{text}T00:00:00Z")).filter(|_| text.len() == DATE);
        let absolute = Timestamp::from_rfc3339(text).or(seconds).or_else(date).map(Self::At);
        let ago = || Some(Self::Ago(Window::parse(text.strip_prefix('-')?).ok()?.duration()));
        absolute.or_else(ago).ok_or_else(|| {
            "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z (write + as %2B), a date such as \
             2026-11-22, or a time before now such as -7d"
                .to_owned()
        })
    }

    /// Returns the time at `now`.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(duration) => now - duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::seconds("1795341600.5", "2026-11-22T10:00:00.5Z")]
    #[case::negative_seconds("-7", "1969-12-31T23:59:53Z")]
    #[case::rfc_3339("2026-11-22T11:00:00+01:00", "2026-11-22T10:00:00Z")]
    #[case::date("2026-11-22", "2026-11-22T00:00:00Z")]
    #[case::days_ago("-7d", "2026-11-15T10:00:00Z")]
    #[case::mixed_ago("-1h 30m", "2026-11-22T08:30:00Z")]
    fn parse_accepts(#[case] text: &str, #[case] expected: &str) {
        let time = |text: &str| Timestamp::from_rfc3339(text).unwrap();
        let parsed = QueryTime::parse(text).unwrap().resolve(time("2026-11-22T10:00:00Z"));
        assert_eq!(parsed, time(expected));
    }

    #[rstest]
    #[case::empty("")]
    #[case::dash("-")]
    #[case::word("yesterday")]
    #[case::ahead("+7d")]
    #[case::without_a_sign("7d")]
    #[case::no_such_day("2026-11-31")]
    #[case::month("2026-11")]
    #[case::short_date("2026-1-2")]
    #[case::two_signs("--7d")]
    #[case::not_a_number("NaN")]
    #[case::endless("inf")]
    #[case::far_past("-1795341600000")]
    fn parse_refuses(#[case] text: &str) {
        assert!(QueryTime::parse(text).unwrap_err().starts_with("must be Unix seconds"));
    }

    #[test]
    fn parse_recognizes_milliseconds() {
        let error = QueryTime::parse("1795341600000").unwrap_err();
        assert_eq!(error, "is too large: Unix time is in seconds here, not in milliseconds");
    }
}
