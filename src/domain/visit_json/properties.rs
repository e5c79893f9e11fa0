//! Properties for arbitrary input: the parser assert_agrees with a simple reference, and written visits round-trip.
//!
//! `PROPTEST_CASES=1000000 cargo test --lib properties` runs more than the 256 cases of each property.

use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{VisitError, misdetected_format, parse};
use crate::domain::{SegmentName, Segments, Timestamp, UserId, Visits};

const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);
const FIELDS: [&str; 4] = ["user_id", "segment", "segments", "seen_at"];

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

/// Returns the name that `value` is, if it is valid.
fn name_of(value: &Value, longest: usize) -> Option<String> {
    let text = value.as_str()?;
    let is_good = !text.is_empty() && text.len() <= longest && text.trim() == text;
    (is_good && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Returns the user, the segments and the milliseconds of visits, by the documented rules.
fn expected_visits(members: &[(String, Value)]) -> Option<(String, Vec<String>, i64)> {
    let values =
        |name: &str| members.iter().filter(|(found, _)| found == name).map(|(_, value)| value).collect::<Vec<_>>();
    let user_id = match values("user_id")[..] {
        [value] => name_of(value, 256)?,
        _ => return None,
    };
    let segments: Vec<_> = match (&values("segment")[..], &values("segments")[..]) {
        ([segment], [] | [Value::Null]) => vec![name_of(segment, 128)?],
        ([] | [Value::Null], [Value::Array(names)]) if (1..=100).contains(&names.len()) => {
            names.iter().map(|name| name_of(name, 128)).collect::<Option<_>>()?
        }
        _ => return None,
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
    has_no_others.then_some((user_id, segments, seen_at))
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
    let expected = members.and_then(|Members(members)| expected_visits(&members));
    match (verdict, value) {
        (Ok(Visits { user_id, segments, seen_at }), _) => {
            let segments = segments.as_slice().iter().map(|name| name.as_str().to_owned()).collect();
            let found = (user_id.as_str().to_owned(), segments, seen_at.as_millis());
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

/// One segment or a list, and the field with its JSON, with any white space and any escapes.
fn segments() -> impl Strategy<Value = (Segments<'static>, (&'static str, String))> {
    let parse = |name: String| SegmentName::parse(name).expect("the strategy makes valid names");
    let one = name(SegmentName::MAX_BYTES).prop_flat_map(move |name| {
        let segments = Segments::One(parse(name.clone()));
        quoted(name).prop_map(move |json| (segments.clone(), ("segment", json)))
    });
    let names = prop::collection::vec(name(SegmentName::MAX_BYTES), 1..5);
    let list = names.prop_flat_map(move |names| {
        let segments = Segments::List(names.iter().cloned().map(parse).collect());
        let items: Vec<_> = names.into_iter().map(|name| (quoted(name), space())).collect();
        items.prop_map(move |items| {
            let items: Vec<_> = items.iter().map(|(name, space)| format!("{name}{space}")).collect();
            (segments.clone(), ("segments", format!("[{}]", items.join(","))))
        })
    });
    prop_oneof![one, list]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", " ", "\t", "\r\n"])
}

/// Valid visits and their JSON, with fields in any order, any white space and any escapes.
fn visits() -> impl Strategy<Value = (Visits<'static>, String)> {
    let parts = (name(UserId::MAX_BYTES), segments(), time());
    parts.prop_flat_map(move |(user, (segments, (member, list)), (millis, seen_at))| {
        let visits = Visits {
            user_id: UserId::parse(user.clone()).expect("the strategy makes valid IDs"),
            segments,
            seen_at: Timestamp::from_millis(millis),
        };
        let field = move |name: &str, value: BoxedStrategy<String>| {
            (space(), quoted(name.to_owned()), space(), space(), value, space())
                .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"))
        };
        let mut fields = vec![field("user_id", quoted(user).boxed()).boxed()];
        fields.push(field(member, Just(list).boxed()).boxed());
        fields.extend(seen_at.map(|time| field("seen_at", Just(time).boxed()).boxed()));
        let json = fields.prop_shuffle().prop_map(|fields| format!("{{{}}}", fields.join(",")));
        (Just(visits), json)
    })
}

/// An object of known and unknown fields, which may be repeated, with valid and invalid values.
fn object() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "user_id", "user_id", "segment", "segment", "segments", "segments", "seen_at", "other", "",
    ]);
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
        "[]",
        r#"["sports","news"]"#,
        r#"["sports",""]"#,
        r#"["sports",null]"#,
        r#"{"a":{}}"#,
        "[",
        "01",
    ]);
    // Mostly valid ones, so that many objects have a single mistake.
    let good = prop::sample::select(vec![
        ("user_id", r#""u1""#),
        ("segment", r#""sports""#),
        ("segments", r#"["sports","news"]"#),
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
        (_, json) in visits(),
        edits in prop::collection::vec(Edit::any(), 1..4),
    ) {
        let mut json = json.into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut json));
        assert_agrees(&json)?;
    }

    #[test]
    fn parse_reads_a_visit_in_any_notation((visits, json) in visits()) {
        prop_assert_eq!(parse(json.as_bytes(), NOW), Ok(visits));
        assert_agrees(json.as_bytes())?;
    }

    #[test]
    fn parse_names_a_repeated_field((_, json) in visits(), repeats_user in any::<bool>()) {
        let visits = parse(json.as_bytes(), NOW).expect("the strategy makes valid visits");
        let member = match visits.segments {
            _ if repeats_user => "user_id",
            Segments::One(_) => "segment",
            Segments::List(_) => "segments",
        };
        let twice = json.replacen('{', &format!("{{\"{member}\":\"u1\","), 1);
        let Err(VisitError::Fields(errors)) = parse(twice.as_bytes(), NOW) else {
            return Err(TestCaseError::fail(twice));
        };
        let named: Vec<_> = errors.iter().map(|error| (&*error.field, error.detail.as_str())).collect();
        prop_assert_eq!(named, [(member, "is given more than once")]);
    }
}

/// A million levels on a small stack: recursion would overflow it, and quadratic time would take days.
#[test]
fn parse_reads_deep_nesting_without_recursion_in_linear_time() {
    const LEVELS: usize = 1_000_000;
    let judge = || {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}0{}", open.repeat(LEVELS), close.repeat(LEVELS));
            for field in ["user_id", "segment", "segments", "seen_at", "other"] {
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
