//! Properties for arbitrary input: the parser assert_agrees with a simple reference, and written visits round-trip.
//!
//! `PROPTEST_CASES=1000000 cargo test --lib properties` runs more than the 256 cases of each property.

use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{VisitError, misdetected_format, parse};
use crate::domain::{SegmentName, Timestamp, UserId, Visit};

const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);
const FIELDS: [&str; 3] = ["user_id", "segment", "seen_at"];

/// The members of an object, including repeated ones.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Returns the user, the segment and the milliseconds of a visit, by the documented rules.
fn expected_visit(members: &[(String, Value)]) -> Option<(String, String, i64)> {
    let values =
        |name: &str| members.iter().filter(|(found, _)| found == name).map(|(_, value)| value).collect::<Vec<_>>();
    let name = |field: &str, longest: usize| match values(field)[..] {
        [Value::String(text)] => {
            let is_good = !text.is_empty() && text.len() <= longest && text.trim() == text;
            (is_good && !text.chars().any(char::is_control)).then(|| text.clone())
        }
        _ => None,
    };
    let now = NOW.as_millis();
    let seen_at = match values("seen_at")[..] {
        [] | [Value::Null] => Some(now),
        [Value::Number(seconds)] => seconds
            .as_f64()
            .filter(|seconds| *seconds <= 1e11)
            .map(|seconds| Timestamp::from_unix_seconds(seconds).as_millis()),
        [Value::String(text)] => Timestamp::from_rfc3339(text).map(Timestamp::as_millis),
        _ => None,
    };
    let seen_at = seen_at.filter(|seen_at| *seen_at <= now + 300_000)?.min(now);
    let has_no_others = members.iter().all(|(name, _)| FIELDS.contains(&name.as_str()));
    has_no_others.then_some((name("user_id", 256)?, name("segment", 128)?, seen_at))
}

/// Checks that the parser assert_agrees with the reference on `json`.
fn assert_agrees(json: &[u8]) -> Result<(), TestCaseError> {
    let verdict = parse(json, NOW);
    let is_told_not_json = matches!(verdict, Err(VisitError::NotJson(_) | VisitError::SeveralValues(_)));
    let text = std::str::from_utf8(json).ok().filter(|_| misdetected_format(json).is_none());
    // Values of unknown fields are skipped and only have to follow the grammar. `1e999` and half of a surrogate pair
    // do, though they can't be parsed as values.
    let keeps_the_grammar = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let value = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    prop_assert!(keeps_the_grammar || is_told_not_json, "{verdict:?}");
    prop_assert!(value.is_none() || !is_told_not_json, "{verdict:?}");

    let members = text.and_then(|text| serde_json::from_str::<Members>(text).ok());
    let expected = members.and_then(|Members(members)| expected_visit(&members));
    match (verdict, value) {
        (Ok(Visit { user_id, segment, seen_at }), _) => {
            let found = (user_id.as_str().to_owned(), segment.as_str().to_owned(), seen_at.as_millis());
            prop_assert_eq!(Some(found), expected);
        }
        (Err(error), value) => {
            prop_assert_eq!(expected, None, "{}", error);
            if let (VisitError::NotAnObject(_), Some(value)) = (&error, &value) {
                prop_assert!(!value.is_object());
            }
            if let (VisitError::Fields(errors), value) = (&error, &value) {
                prop_assert!(!errors.is_empty() && value.as_ref().is_none_or(Value::is_object));
            }
        }
    }
    Ok(())
}

/// A name of up to `longest` bytes.
fn name(longest: usize) -> impl Strategy<Value = String> {
    let characters = prop::collection::vec(any::<char>(), 1..60);
    characters.prop_filter_map("the name is empty", move |characters| {
        let mut text: String = characters.into_iter().filter(|c| !c.is_control()).collect();
        text.truncate(text.floor_char_boundary(longest));
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    })
}

/// Returns `text` as a JSON string, each character in any of its notations.
fn quoted(text: String) -> impl Strategy<Value = String> {
    let length = text.chars().count();
    prop::collection::vec(0..4_u8, length).prop_map(move |forms| {
        let characters = text.chars().zip(forms).map(|(c, form)| match (form, c) {
            (0, c) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
            (1, c) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}")).collect()
            }
            (_, '"' | '\\') | (2, '/') => format!("\\{c}"),
            (_, c) => c.to_string(),
        });
        format!("\"{}\"", characters.collect::<String>())
    })
}

/// A time in milliseconds that is not in the future, and its notation.
fn time() -> impl Strategy<Value = (i64, Option<String>)> {
    let millis = prop_oneof![0..NOW.as_millis(), NOW.as_millis() - 1_000..=NOW.as_millis()];
    prop_oneof![
        Just((NOW.as_millis(), None)),
        Just((NOW.as_millis(), Some("null".to_owned()))),
        millis.clone().prop_map(|millis| (millis, Some(format!("{}.{:03}", millis / 1_000, millis % 1_000)))),
        millis.clone().prop_map(|millis| (millis, Some(format!("{millis}e-3")))),
        millis.clone().prop_map(|millis| (millis / 1_000 * 1_000, Some((millis / 1_000).to_string()))),
        millis.prop_map(|millis| (millis, Some(format!("\"{}\"", Timestamp::from_millis(millis))))),
    ]
}

/// A valid visit and its JSON, with fields in any order, any white space and any escapes.
fn visit() -> impl Strategy<Value = (Visit<'static>, String)> {
    let space = || prop::sample::select(vec!["", "", " ", "\t", "\r\n"]);
    let parts = (name(UserId::MAX_BYTES), name(SegmentName::MAX_BYTES), time());
    parts.prop_flat_map(move |(user, segment, (millis, seen_at))| {
        let visit = Visit {
            user_id: UserId::parse(user.clone()).expect("the strategy makes valid IDs"),
            segment: SegmentName::parse(segment.clone()).expect("the strategy makes valid names"),
            seen_at: Timestamp::from_millis(millis),
        };
        let field = move |name: &str, value: BoxedStrategy<String>| {
            (space(), quoted(name.to_owned()), space(), space(), value, space())
                .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"))
        };
        let mut fields = vec![field("user_id", quoted(user).boxed()).boxed()];
        fields.push(field("segment", quoted(segment).boxed()).boxed());
        fields.extend(seen_at.map(|time| field("seen_at", Just(time).boxed()).boxed()));
        let json = fields.prop_shuffle().prop_map(|fields| format!("{{{}}}", fields.join(",")));
        (Just(visit), json)
    })
}

/// An object of known and unknown fields, which may be repeated, with valid and invalid values.
fn object() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["user_id", "user_id", "segment", "segment", "seen_at", "other", ""]);
    let value = prop::sample::select(vec![
        r#""u1""#,
        r#""sports""#,
        r#"" u1""#,
        r#""""#,
        r#""\u0000""#,
        r#""\ud800""#,
        r#""2026-11-22T10:00:00Z""#,
        r#""2026-13-22T10:00:00Z""#,
        "1795341600",
        "1795341900",
        "1795341900.001",
        "1e11",
        "1e12",
        "1e999",
        "-1e308",
        "-0",
        "null",
        "true",
        "[1,[]]",
        r#"{"a":{}}"#,
        "[",
        "01",
    ]);
    // Mostly valid ones, so that many objects have a single mistake.
    let good = prop::sample::select(vec![
        ("user_id", r#""u1""#),
        ("segment", r#""sports""#),
        ("seen_at", "1795341600"),
        ("seen_at", "null"),
    ]);
    let fields = prop::collection::vec(prop_oneof![4 => good, 1 => (name, value)], 0..5);
    fields.prop_map(|fields| {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

/// An edit of some bytes, at an index modulo their number.
#[derive(Debug, Clone)]
enum Edit {
    Flip(usize, u8),
    Insert(usize, u8),
    Delete(usize),
    Cut(usize),
    Repeat(usize),
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        let byte = || prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,ue0-. \n".to_vec())];
        let place = || any::<usize>();
        prop_oneof![
            4 => (place(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            4 => (place(), byte()).prop_map(|(at, byte)| Self::Insert(at, byte)),
            4 => place().prop_map(Self::Delete),
            1 => place().prop_map(Self::Cut),
            1 => place().prop_map(Self::Repeat),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match *self {
            Self::Insert(at, byte) => bytes.insert(at % (bytes.len() + 1), byte),
            _ if bytes.is_empty() => {}
            Self::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Self::Delete(at) => drop(bytes.remove(at % length)),
            Self::Cut(at) => bytes.truncate(at % length),
            Self::Repeat(at) => bytes.extend_from_within(at % length..),
        }
    }
}

proptest! {
    #[test]
    fn parse_agrees_with_the_reference_on_any_bytes(json in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_agrees(&json)?;
    }

    #[test]
    fn parse_agrees_with_the_reference_on_any_object(json in object()) {
        assert_agrees(json.as_bytes())?;
    }

    #[test]
    fn parse_agrees_with_the_reference_on_an_edited_object(
        json in object(),
        edits in prop::collection::vec(Edit::any(), 1..4),
    ) {
        let mut json = json.into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut json));
        assert_agrees(&json)?;
    }

    #[test]
    fn parse_agrees_with_the_reference_on_an_edited_visit(
        (_, json) in visit(),
        edits in prop::collection::vec(Edit::any(), 1..4),
    ) {
        let mut json = json.into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut json));
        assert_agrees(&json)?;
    }

    #[test]
    fn parse_reads_a_visit_in_any_notation((visit, json) in visit()) {
        prop_assert_eq!(parse(json.as_bytes(), NOW), Ok(visit));
        assert_agrees(json.as_bytes())?;
    }

    #[test]
    fn parse_names_a_repeated_field((_, json) in visit(), which in 0..2_usize) {
        let twice = json.replacen('{', &format!("{{\"{}\":\"u1\",", FIELDS[which]), 1);
        let Err(VisitError::Fields(errors)) = parse(twice.as_bytes(), NOW) else {
            return Err(TestCaseError::fail(twice));
        };
        let named: Vec<_> = errors.iter().map(|error| (&*error.field, error.detail.as_str())).collect();
        prop_assert_eq!(named, [(FIELDS[which], "is given more than once")]);
    }
}

/// A million levels on a small stack: recursion would overflow it, and quadratic time would take days.
#[test]
fn parse_reads_deep_nesting_without_recursion_in_linear_time() {
    const LEVELS: usize = 1_000_000;
    let judge = || {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}0{}", open.repeat(LEVELS), close.repeat(LEVELS));
            for field in ["user_id", "segment", "seen_at", "other"] {
                let json = format!("{{\"{field}\":{deep},\"user_id\":\"u1\",\"segment\":\"sports\"}}");
                assert!(matches!(parse(json.as_bytes(), NOW), Err(VisitError::Fields(_))), "{field}");
                let unfinished = &json[..json.len() / 2];
                assert!(matches!(parse(unfinished.as_bytes(), NOW), Err(VisitError::NotJson(_))), "{field}");
            }
        }
        let array = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
        assert_eq!(parse(array.as_bytes(), NOW), Err(VisitError::NotAnObject("an array")));
    };
    std::thread::Builder::new().stack_size(256 * 1024).spawn(judge).unwrap().join().unwrap();
}
