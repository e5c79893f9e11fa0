//! Visits without a clock: parsed from strings, as in CSV, and written as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use super::error::VisitError;
use super::fields::{self, RawFields};
use super::value::FieldValue;
use crate::domain::{FieldError, Segments, Timestamp, UserId, Visits};

/// Visits as they were sent, whose time was not yet compared with a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawVisits<'a> {
    /// The user.
    pub user_id: UserId<'a>,
    /// The segments.
    pub segments: Segments<'a>,
    /// The time of the visits; `None` means their arrival.
    pub seen_at: Option<Timestamp>,
}

impl<'a> RawVisits<'a> {
    /// Parses the fields of a visit by the rules for JSON. A `seen_at` that is a number is Unix seconds. An empty one
    /// is an error: it may be a time that was lost, and must not become the time of arrival.
    ///
    /// # Errors
    ///
    /// A [`VisitError`] that names every mistake.
    pub fn from_texts(user_id: &'a str, segment: &'a str, seen_at: Option<&'a str>) -> Result<Self, VisitError> {
        let text = |text| Some(FieldValue::Text(Cow::Borrowed(text)));
        let (mut errors, mut seen_at) = (Vec::new(), seen_at);
        if seen_at.take_if(|time| time.is_empty()).is_some() {
            errors.push(FieldError::new("seen_at", "must not be empty; for the time of the import, use --seen-at now"));
        }
        let seen_at = seen_at.and_then(|time| unix_seconds(time).map(FieldValue::Number).or_else(|| text(time)));
        let (user_id, segment) = (text(user_id), text(segment));
        Self::from_fields(RawFields { user_id, segment, segments: None, seen_at, weight: None, errors })
    }

    /// Validates all fields.
    pub(super) fn from_fields(fields: RawFields<'a>) -> Result<Self, VisitError> {
        let RawFields { user_id, segment, segments, seen_at, mut errors, weight: _ } = fields;
        let user_id = fields::text("user_id", user_id).and_then(UserId::parse).map_err(|error| errors.push(error));
        let segments = fields::segments(segment, segments).map_err(|found| errors.extend(found));
        let seen_at = fields::time("seen_at", seen_at).map_err(|error| errors.push(error));
        match (user_id, segments, seen_at) {
            (Ok(user_id), Ok(segments), Ok(seen_at)) if errors.is_empty() => Ok(Self { user_id, segments, seen_at }),
            _ => Err(VisitError::Fields(errors)),
        }
    }

    /// Returns the visits that arrive at `now`.
    ///
    /// # Errors
    ///
    /// A [`VisitError`] if their time is too far ahead.
    pub fn at(self, now: Timestamp) -> Result<Visits<'a>, VisitError> {
        let Self { user_id, segments, seen_at } = self;
        Visits::new(user_id, segments, seen_at, now).map_err(|error| VisitError::Fields(vec![error]))
    }

    /// Writes each visit to `out` as a line of JSON.
    ///
    /// # Errors
    ///
    /// The error of `out`.
    pub fn write_lines(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_weighted_lines(None, out)
    }

    /// As [`Self::write_lines`], with the number of users that each line stands for.
    ///
    /// # Errors
    ///
    /// The error of `out`.
    pub fn write_weighted_lines(&self, weight: Option<u64>, out: &mut impl Write) -> io::Result<()> {
        let (user_id, seen_at) = (self.user_id.as_str(), self.seen_at.map(Timestamp::as_score));
        for segment in self.segments.as_slice() {
            serde_json::to_writer(&mut *out, &VisitLine { user_id, segment: segment.as_str(), seen_at, weight })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct VisitLine<'a> {
    user_id: &'a str,
    segment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u64>,
}

/// Parses a number of JSON, and allows a plus or zeros in front. Rust would also accept `inf` and `nan`.
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
    use crate::domain::SegmentName;
    use crate::domain::visit_json::{parse, read};

    #[rstest]
    #[case::none(None, None)]
    #[case::seconds(Some("1795341600"), Some(1_795_341_600_000))]
    #[case::fraction(Some("1795341600.25"), Some(1_795_341_600_250))]
    #[case::exponent(Some("1.7953416e9"), Some(1_795_341_600_000))]
    #[case::before_the_epoch(Some("-1"), Some(-1_000))]
    #[case::rfc_3339(Some("2026-11-22T10:00:00Z"), Some(1_795_341_600_000))]
    fn from_texts_reads_times_as_json_has_them(#[case] text: Option<&str>, #[case] millis: Option<i64>) {
        let reported = RawVisits::from_texts("u1", "sports", text).unwrap();
        assert_eq!(reported.seen_at.map(Timestamp::as_millis), millis);
    }

    #[rstest]
    #[case::empty("", "seen_at must not be empty; for the time of the import, use --seen-at now")]
    #[case::blank(" ", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case::word("soon", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case::not_a_number("nan", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case::infinite("1e999", "seen_at must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z")]
    #[case::milliseconds("1795341600000", "seen_at is too large: Unix time is in seconds here, not in milliseconds")]
    fn from_texts_explains_a_rejected_time(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(RawVisits::from_texts("u1", "sports", Some(text)).unwrap_err().to_string(), expected);
    }

    #[test]
    fn from_texts_names_all_mistakes() {
        let error = RawVisits::from_texts("", " x", Some("soon")).unwrap_err().to_string();
        assert!(error.contains("user_id must not be empty; segment must not start or end"), "{error}");
        assert!(error.contains("seen_at must be"), "{error}");
    }

    #[rstest]
    #[case::kept_by_all(r#"{"user_id":"u1","segment":"s","weight":1}"#, None)]
    #[case::kept_by_all_as_a_fraction(r#"{"user_id":"u1","segment":"s","weight":1.0}"#, None)]
    #[case::sample(
        r#"{"user_id":"u1","segment":"s","weight":128}"#,
        Some(
            "weight is 128: the file is a sample, from `export --sample`, and this line stands for 128 users, so importing it would count too few"
        )
    )]
    #[case::text(
        r#"{"user_id":"u1","segment":"s","weight":"1"}"#,
        Some(
            r#"weight is "1": the file is a sample, from `export --sample`, and this line stands for "1" users, so importing it would count too few"#
        )
    )]
    #[case::twice(
        r#"{"user_id":"u1","segment":"s","weight":1,"weight":1}"#,
        Some("weight is not a field of a visit; those are user_id, segment or segments, and seen_at")
    )]
    fn read_accepts_the_weight_1_alone(#[case] json: &str, #[case] expected: Option<&str>) {
        assert_eq!(read(json.as_bytes()).err().map(|error| error.to_string()).as_deref(), expected);
        // Over HTTP, no visit has a weight.
        let error = parse(json.as_bytes(), Timestamp::from_millis(0)).unwrap_err().to_string();
        assert!(error.starts_with("weight is not a field of a visit; those are "), "{error}");
    }

    proptest! {
        #[test]
        fn write_lines_round_trips(
            user in "[a-z\"\\\\ü]{1,9}",
            segments in prop::collection::vec("[a-z{}:/\u{2028}]{1,9}", 1..4),
            millis in prop::option::of(-1_000..99_999_999_999_999_i64),
        ) {
            let names = || segments.iter().map(|segment| SegmentName::parse(format!("x{segment}x")).unwrap());
            let of = |segments| RawVisits {
                user_id: UserId::parse(user.as_str()).unwrap(),
                segments,
                seen_at: millis.map(Timestamp::from_millis),
            };
            let mut text = Vec::new();
            of(Segments::List(names().collect())).write_lines(&mut text).unwrap();
            let lines: Vec<_> = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
            let found: Vec<_> = lines.into_iter().map(|line| read(line).unwrap()).collect();
            prop_assert_eq!(found, names().map(|name| of(Segments::One(name))).collect::<Vec<_>>());
        }
    }
}
