//! A visit as it is reported: read from texts, as in CSV, and written as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use super::{RawVisit, Value, VisitError};
use crate::domain::{FieldError, SegmentName, Timestamp, UserId, Visit};

/// A visit as somebody reports it, before it is held against a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported<'a> {
    /// Who.
    pub user_id: UserId<'a>,
    /// Where.
    pub segment: SegmentName<'a>,
    /// When; at its arrival if nobody says.
    pub seen_at: Option<Timestamp>,
}

impl<'a> Reported<'a> {
    /// Takes the texts of a visit's fields as JSON's are taken: a `seen_at` that is a number is Unix seconds. An empty one is an error,
    /// since a time that was lost can't be told from one that is now.
    ///
    /// # Errors
    ///
    /// A [`VisitError`] that names every bad field.
    pub fn from_texts(user_id: &'a str, segment: &'a str, seen_at: Option<&'a str>) -> Result<Self, VisitError> {
        let text = |text| Some(Value::Text(Cow::Borrowed(text)));
        let (mut errors, mut seen_at) = (Vec::new(), seen_at);
        if seen_at.take_if(|time| time.is_empty()).is_some() {
            errors.push(FieldError::new("seen_at", "must not be empty; --seen-at now takes the time of the import"));
        }
        let seen_at = seen_at.and_then(|time| unix_seconds(time).map(Value::Number).or_else(|| text(time)));
        RawVisit { user_id: text(user_id), segment: text(segment), seen_at, errors }.checked()
    }

    /// The visit that arrives at `now`.
    ///
    /// # Errors
    ///
    /// A [`VisitError`] when its time is too far ahead of that.
    pub fn arriving_at(self, now: Timestamp) -> Result<Visit<'a>, VisitError> {
        let Self { user_id, segment, seen_at } = self;
        Visit::new(user_id, segment, seen_at, now).map_err(|error| VisitError::Fields(vec![error]))
    }

    /// Writes its JSON form and the end of a line to `out`.
    ///
    /// # Errors
    ///
    /// When `out` can't be written.
    pub fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { user_id, segment, seen_at } = self;
        let seen_at = seen_at.map(Timestamp::as_score);
        serde_json::to_writer(&mut *out, &Line { user_id: user_id.as_str(), segment: segment.as_str(), seen_at })?;
        out.write_all(b"\n")
    }
}

#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a str,
    segment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<f64>,
}

/// `text` as a number, as JSON has them, with a plus or zeros in front as CSV may. Rust takes `inf` and `nan` for numbers, too.
fn unix_seconds(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    let seconds: f64 = digits.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok())??;
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::domain::visit_json::read;

    #[rstest]
    #[case(None, None)]
    #[case(Some("1795341600"), Some(1_795_341_600_000))]
    #[case(Some("1795341600.25"), Some(1_795_341_600_250))]
    #[case(Some("1.7953416e9"), Some(1_795_341_600_000))]
    #[case(Some("-1"), Some(-1_000))]
    #[case(Some("2026-11-22T10:00:00Z"), Some(1_795_341_600_000))]
    fn times_are_read_as_in_json(#[case] text: Option<&str>, #[case] millis: Option<i64>) {
        let reported = Reported::from_texts("u1", "sports", text).unwrap();
        assert_eq!(reported.seen_at.map(Timestamp::as_millis), millis);
    }

    #[rstest]
    #[case("", "seen_at must not be empty; --seen-at now takes the time of the import")]
    #[case(" ", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case("soon", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case("nan", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case("1e999", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case("1795341600000", "seen_at is too large: Unix time is in seconds here, not in milliseconds")]
    fn what_is_no_time_is_named(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(Reported::from_texts("u1", "sports", Some(text)).unwrap_err().to_string(), expected);
    }

    #[test]
    fn every_bad_field_is_named() {
        let error = Reported::from_texts("", " x", Some("soon")).unwrap_err().to_string();
        assert!(error.contains("user_id must not be empty; segment must not start or end"), "{error}");
        assert!(error.contains("seen_at must be"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(
            user in "[a-z\"\\\\ü]{1,9}", segment in "[a-z{}:/\u{2028}]{1,9}", millis in prop::option::of(-1_000..99_999_999_999_999_i64),
        ) {
            let reported = Reported {
                user_id: UserId::parse(user.as_str()).unwrap(),
                segment: SegmentName::parse(format!("x{segment}x")).unwrap(),
                seen_at: millis.map(Timestamp::from_millis),
            };
            let mut line = Vec::new();
            reported.write_line(&mut line).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(read(line.trim_ascii_end()).unwrap(), reported);
        }
    }
}
