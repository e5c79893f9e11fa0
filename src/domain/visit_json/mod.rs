//! The JSON form of a visit: `{"user_id": "u104010", "segment": "sports", "seen_at": 1763805600}`. With
//! `"segments": ["sports", "news"]` it is as many visits.
//!
//! Parses in one pass, and borrows where it can. A field of the wrong type doesn't end the pass, so that one answer
//! names all mistakes. Unknown fields are errors, since a misspelt `seen_at` would silently record the wrong time.

mod error;
mod fields;
mod raw_visits;
mod value;

use std::str::Utf8Error;

use serde::de::IgnoredAny;
use serde_json::error::Category;

pub use self::error::VisitError;
use self::fields::RawFields;
pub use self::raw_visits::RawVisits;
use self::value::FieldValue;
use super::{Timestamp, Visits};

/// Parses visits that arrive at `now`. With one invalid name, all are invalid, so that a caller can correct the name and
/// repeat the whole.
///
/// # Errors
///
/// A [`VisitError`] that names every mistake, or the first ones.
pub fn parse(json: &[u8], now: Timestamp) -> Result<Visits<'_>, VisitError> {
    RawVisits::from_fields(raw_fields(json)?.without_weight())?.at(now)
}

/// Parses visits of a file, without comparing their time with a clock. A line of an export may have the `weight` 1.
///
/// # Errors
///
/// As [`parse`], except for a `seen_at` that is ahead of the clock. With another `weight`, the line is from a sample.
pub fn read(json: &[u8]) -> Result<RawVisits<'_>, VisitError> {
    RawVisits::from_fields(raw_fields(json)?.with_weight_1())
}

fn raw_fields(json: &[u8]) -> Result<RawFields<'_>, VisitError> {
    // One check of the whole is cheaper than one of each string, and includes the skipped ones.
    let utf_8 = std::str::from_utf8(json).map_err(|error| not_utf_8(error, json))?;
    serde_json::from_str(utf_8).map_err(|error| explain(&error, json))
}

/// Detects input that only looks as if it were not JSON, by its first bytes. The message of the parser would mislead.
#[must_use]
pub fn misdetected_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        Some("it begins with a byte order mark (EF BB BF), which must be left out")
    } else if bytes.starts_with(b"\x1F\x8B") {
        Some("it is compressed with gzip, and no content-encoding says so")
    } else {
        None
    }
}

/// Returns the byte at which an object follows the first value in `json`, counted from 1.
#[must_use]
pub fn second_value(json: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let rest = json[values.byte_offset()..].trim_ascii_start();
    rest.starts_with(b"{").then(|| json.len() - rest.len() + 1)
}

fn not_utf_8(error: Utf8Error, json: &[u8]) -> VisitError {
    let why = misdetected_format(json)
        .map_or_else(|| format!("byte {} is not UTF-8", error.valid_up_to() + 1), str::to_owned);
    VisitError::NotJson(format!("not JSON: {why}"))
}

/// Explains an error of serde_json. It stops at the first value of a wrong type, so the rest may not be JSON.
fn explain(error: &serde_json::Error, json: &[u8]) -> VisitError {
    if json.is_empty() {
        return VisitError::NotJson("empty".to_owned());
    }
    if let Some(why) = misdetected_format(json) {
        return VisitError::NotJson(format!("not JSON: {why}"));
    }
    if let Some(at) = second_value(json) {
        return VisitError::SeveralValues(at);
    }
    if error.classify() != Category::Data {
        return not_json(error, json);
    }
    match serde_json::from_slice::<FieldValue>(json) {
        Ok(value) => VisitError::NotAnObject(value.kind()),
        Err(syntax) => not_json(&syntax, json),
    }
}

fn not_json(error: &serde_json::Error, json: &[u8]) -> VisitError {
    let text = format!("not JSON: {error}");
    // One line may be one of many, so "line 1" would mislead.
    VisitError::NotJson(if json.contains(&b'\n') { text } else { text.replace(" at line 1 column", " at column") })
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::{SegmentName, Segments};

    const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);

    fn fields(json: &str) -> Vec<(String, String)> {
        match parse(json.as_bytes(), NOW) {
            Err(VisitError::Fields(errors)) => {
                errors.into_iter().map(|error| (error.field.into_owned(), error.detail)).collect()
            }
            other => panic!("{json} gave {other:?}"),
        }
    }

    #[rstest]
    #[case::no_time(r#"{"user_id":"u1","segment":"sports"}"#, 0)]
    #[case::null_time(r#"{"user_id":"u1","segment":"sports","seen_at":null}"#, 0)]
    #[case::null_segments(r#"{"user_id":"u1","segment":"sports","segments":null}"#, 0)]
    #[case::other_order(r#" { "segment" : "sports", "user_id" : "u1" } "#, 0)]
    #[case::seconds(r#"{"user_id":"u1","segment":"sports","seen_at":1795341599}"#, -1_000)]
    #[case::fraction(r#"{"user_id":"u1","segment":"sports","seen_at":1795341599.75}"#, -250)]
    #[case::rfc_3339(r#"{"user_id":"u1","segment":"sports","seen_at":"2026-11-22T10:59:59+01:00"}"#, -1_000)]
    #[case::epoch(r#"{"user_id":"u1","segment":"sports","seen_at":0}"#, -1_795_341_600_000)]
    #[case::escapes(r#"{"user_\u0069d":"\u00751","segment":"s\u0070orts"}"#, 0)]
    fn parse_reads_a_visit(#[case] json: &str, #[case] offset_millis: i64) {
        let visits = parse(json.as_bytes(), NOW).unwrap();
        let sports = Segments::One(SegmentName::parse("sports").unwrap());
        assert_eq!((visits.user_id.as_str(), &visits.segments), ("u1", &sports));
        assert_eq!(visits.seen_at.as_millis() - NOW.as_millis(), offset_millis);
    }

    #[rstest]
    #[case::one(r#"{"user_id":"u1","segments":["sports"]}"#, &["sports"])]
    #[case::several(r#"{"segments":["sports","news","s\u00f6"],"user_id":"u1"}"#, &["sports", "news", "sö"])]
    #[case::repeated_name(r#"{"user_id":"u1","segments":["news","news"]}"#, &["news", "news"])]
    #[case::null_segment(r#"{"user_id":"u1","segment":null,"segments":["sports"]}"#, &["sports"])]
    fn parse_reads_a_list_of_segments(#[case] json: &str, #[case] expected: &[&str]) {
        let names = expected.iter().map(|name| SegmentName::parse(*name).unwrap());
        assert_eq!(parse(json.as_bytes(), NOW).unwrap().segments, Segments::List(names.collect()));
    }

    fn with_segments(count: usize) -> String {
        let names: Vec<_> = (0..count).map(|n| format!("\"s{n}\"")).collect();
        format!(r#"{{"user_id":"u1","segments":[{}]}}"#, names.join(","))
    }

    #[test]
    fn parse_limits_the_number_of_segments() {
        let visits = with_segments(100);
        assert_eq!(parse(visits.as_bytes(), NOW).unwrap().segments.as_slice().len(), 100);
        for count in [101, 1_000] {
            let expected = ("segments".to_owned(), "has more than 100 names, the limit".to_owned());
            assert_eq!(fields(&with_segments(count)), [expected]);
        }
    }

    #[rstest]
    #[case::empty("")]
    #[case::words("user_id=u1&segment=sports")]
    #[case::cut(r#"{"user_id":"u1","segment":"spo"#)]
    #[case::trailing(r#"{"user_id":"u1","segment":"sports"} ]"#)]
    #[case::wrong_type_then_cut("[1,")]
    #[case::lone_surrogate(r#"{"user_id":"\ud800","segment":"sports"}"#)]
    #[case::number_too_large(r#"{"user_id":"u1","segment":"sports","seen_at":1e999}"#)]
    #[case::too_deep(&"[".repeat(100_000))]
    fn parse_rejects_other_input_as_not_json(#[case] json: &str) {
        assert!(matches!(parse(json.as_bytes(), NOW), Err(VisitError::NotJson(_))));
    }

    #[rstest]
    #[case::after_a_space(r#"{"user_id":"u1","segment":"sports"} {}"#, 37)]
    #[case::adjacent("{}{", 3)]
    #[case::on_the_next_line("[]\n{}", 4)]
    fn parse_finds_a_second_value(#[case] json: &str, #[case] column: usize) {
        assert_eq!(parse(json.as_bytes(), NOW), Err(VisitError::SeveralValues(column)));
    }

    #[rstest]
    #[case::byte_order_mark(
        b"\xEF\xBB\xBF{}",
        "not JSON: it begins with a byte order mark (EF BB BF), which must be left out"
    )]
    #[case::gzip(b"\x1F\x8B\x08\0", "not JSON: it is compressed with gzip, and no content-encoding says so")]
    fn parse_names_a_misdetected_format(#[case] bytes: &[u8], #[case] why: &str) {
        assert_eq!(parse(bytes, NOW), Err(VisitError::NotJson(why.to_owned())));
    }

    #[rstest]
    #[case::in_a_field(b"{\"user_id\":\"u\xff\",\"segment\":\"sports\"}", 14)]
    #[case::in_an_unknown_field(b"{\"other\":[\"\xff\"],\"user_id\":\"u1\"}", 12)]
    fn parse_rejects_invalid_utf_8(#[case] json: &[u8], #[case] place: usize) {
        assert_eq!(parse(json, NOW), Err(VisitError::NotJson(format!("not JSON: byte {place} is not UTF-8"))));
    }

    #[rstest]
    #[case::array("[{}]", "an array")]
    #[case::null("null", "null")]
    #[case::number("7", "a number")]
    #[case::string("\"sports\"", "a string")]
    fn parse_names_the_kind_of_another_value(#[case] json: &str, #[case] kind: &str) {
        match parse(json.as_bytes(), NOW) {
            Err(VisitError::NotAnObject(found)) => assert_eq!(found, kind),
            other => panic!("{json} gave {other:?}"),
        }
    }

    #[rstest]
    #[case::missing(r#"{"user_id":"u1"}"#, "segment", "is required, or segments")]
    #[case::both_null(r#"{"user_id":"u1","segment":null,"segments":null}"#, "segment", "is required, or segments")]
    #[case::both(
        r#"{"user_id":"u1","segment":"s","segments":["s"]}"#,
        "segments",
        "is given together with segment; a visit has one of them"
    )]
    #[case::both_and_invalid(
        r#"{"user_id":"u1","segment":7,"segments":"s"}"#,
        "segments",
        "is given together with segment; a visit has one of them"
    )]
    #[case::no_list(r#"{"user_id":"u1","segments":"s"}"#, "segments", "must be an array of strings, not a string")]
    #[case::object_for_a_list(
        r#"{"user_id":"u1","segments":{"s":1}}"#,
        "segments",
        "must be an array of strings, not an object"
    )]
    #[case::empty_list(r#"{"user_id":"u1","segments":[]}"#, "segments", "must not be empty")]
    #[case::empty_name(r#"{"user_id":"u1","segments":["s","s","s",""]}"#, "segments[3]", "must not be empty")]
    #[case::number_in_a_list(r#"{"user_id":"u1","segments":[7]}"#, "segments[0]", "must be a string, not a number")]
    #[case::null_in_a_list(r#"{"user_id":"u1","segments":["s",null]}"#, "segments[1]", "must be a string, not null")]
    #[case::nested_list(r#"{"user_id":"u1","segments":[["s"]]}"#, "segments[0]", "must be a string, not an array")]
    #[case::two_lists(r#"{"user_id":"u1","segments":["s"],"segments":["s"]}"#, "segments", "is given more than once")]
    #[case::null(r#"{"user_id":null,"segment":"s"}"#, "user_id", "is required")]
    #[case::number(r#"{"user_id":104010,"segment":"s"}"#, "user_id", "must be a string, not a number")]
    #[case::array(r#"{"user_id":"u1","segment":["s"]}"#, "segment", "must be a string, not an array")]
    #[case::object(r#"{"user_id":"u1","segment":{"n":"s"}}"#, "segment", "must be a string, not an object")]
    #[case::empty(r#"{"user_id":"u1","segment":""}"#, "segment", "must not be empty")]
    #[case::twice(r#"{"user_id":"u1","user_id":"u2","segment":"s"}"#, "user_id", "is given more than once")]
    #[case::misspelt(
        r#"{"user_id":"u1","segment":"s","seenat":1}"#,
        "seenat",
        "is not a field of a visit; those are user_id, segment or segments, and seen_at"
    )]
    #[case::date_alone(
        r#"{"user_id":"u1","segment":"s","seen_at":"2026-11-22"}"#,
        "seen_at",
        "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z"
    )]
    #[case::boolean_time(
        r#"{"user_id":"u1","segment":"s","seen_at":true}"#,
        "seen_at",
        "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z, not a boolean"
    )]
    #[case::milliseconds(
        r#"{"user_id":"u1","segment":"s","seen_at":1795341600000}"#,
        "seen_at",
        "is too large: Unix time is in seconds here, not in milliseconds"
    )]
    #[case::an_hour_ahead(
        r#"{"user_id":"u1","segment":"s","seen_at":1795345200}"#,
        "seen_at",
        "is 2026-11-22T11:00:00.000Z, more than 5 minutes ahead of this service's clock, 2026-11-22T10:00:00.000Z"
    )]
    fn parse_names_a_mistake(#[case] json: &str, #[case] field: &str, #[case] detail: &str) {
        assert_eq!(fields(json), [(field.to_owned(), detail.to_owned())]);
    }

    #[test]
    fn parse_names_all_mistakes_at_once() {
        let named: Vec<_> = fields(r#"{"user_id":7,"extra":[1,{"a":2}],"seen_at":"soon"}"#);
        let named: Vec<_> = named.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(named, ["extra", "user_id", "segment", "seen_at"]);
    }

    #[test]
    fn parse_names_the_first_ten_invalid_names_of_a_list() {
        let named = fields(&format!(r#"{{"user_id":7,"segments":["s"{}]}}"#, ",\"\"".repeat(50)));
        let named: Vec<_> = named.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(named.len(), 11);
        assert_eq!((named[0], named[1], named[10]), ("user_id", "segments[1]", "segments[10]"));
    }

    #[test]
    fn parse_limits_the_number_and_length_of_errors() {
        let unknown: Vec<_> = (0..500).map(|n| format!("\"é{}{n}\":0", "x".repeat(100))).collect();
        let errors = fields(&format!("{{{}}}", unknown.join(",")));
        assert_eq!(errors.len(), 12);
        assert_eq!(errors[0].0, format!("é{}…", "x".repeat(62)));
        assert_eq!((errors[10].0.as_str(), errors[11].0.as_str()), ("user_id", "segment"));
    }
}
