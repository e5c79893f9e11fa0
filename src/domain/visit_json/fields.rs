//! The fields of a visit as they are in its JSON: of any type, repeated or unknown.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::value::{FieldValue, ListValue};
use crate::domain::{FieldError, SegmentName, Segments, Timestamp};

/// The limit on the errors of one kind: the answer must not be a multiple of the request.
const MAX_ERRORS: usize = 10;

/// The fields before validation, and the mistakes in their names.
#[derive(Default)]
pub(super) struct RawFields<'de> {
    pub(super) user_id: Option<FieldValue<'de>>,
    pub(super) segment: Option<FieldValue<'de>>,
    /// Boxed: few visits have it.
    pub(super) segments: Option<Box<ListValue<'de>>>,
    pub(super) seen_at: Option<FieldValue<'de>>,
    /// The weight of a line of an exported sample. Boxed: only exports have it.
    pub(super) weight: Option<Box<serde_json::Value>>,
    pub(super) errors: Vec<FieldError>,
}

impl<'de> RawFields<'de> {
    /// Adds an error, up to a limit.
    fn push_error(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    /// Refuses a weight as an unknown field.
    pub(super) fn without_weight(mut self) -> Self {
        if self.weight.take().is_some() {
            self.push_error(FieldError::new(WEIGHT, UNKNOWN));
        }
        self
    }

    /// Refuses a weight other than 1: the line stands for more users than its own.
    pub(super) fn with_weight_1(mut self) -> Self {
        if let Some(weight) = self.weight.take()
            && weight.as_f64() != Some(1.0)
        {
            let weight = truncated(weight.to_string());
            let detail = format!(
                "is {weight}: the file is a sample, from `export --sample`, and this line stands for {weight} users, so importing it would \
                 count too few"
            );
            self.push_error(FieldError::new(WEIGHT, detail));
        }
        self
    }
}

/// The field of an exported sample that says how many users a line stands for.
const WEIGHT: &str = "weight";
/// The mistake of a field that no visit has.
const UNKNOWN: &str = "is not a field of a visit; those are user_id, segment or segments, and seen_at";

/// Truncates the name of an unknown field.
fn truncated(mut name: String) -> String {
    const MAX: usize = 64;
    if name.len() > MAX {
        name.truncate(name.floor_char_boundary(MAX));
        name.push('…');
    }
    name
}

/// Returns the text of a required field.
pub(super) fn text<'de>(field: &'static str, value: Option<FieldValue<'de>>) -> Result<Cow<'de, str>, FieldError> {
    match value {
        Some(FieldValue::Text(text)) => Ok(text),
        None | Some(FieldValue::Null) => Err(FieldError::new(field, "is required")),
        Some(other) => Err(FieldError::new(field, format!("must be a string, not {}", other.kind()))),
    }
}

/// Returns the names of `segment` or of `segments`, one of which is required. Null is the same as a missing field.
pub(super) fn segments<'de>(
    segment: Option<FieldValue<'de>>,
    segments: Option<Box<ListValue<'de>>>,
) -> Result<Segments<'de>, Vec<FieldError>> {
    let list = match segments.map(|segments| *segments) {
        None | Some(ListValue { value: FieldValue::Null, .. }) => return one(segment),
        Some(list) => list,
    };
    let mistake = |detail: String| Err(vec![FieldError::new("segments", detail)]);
    match (segment, list.value) {
        (None | Some(FieldValue::Null), FieldValue::Array) => names(list.items).map(Segments::List),
        (None | Some(FieldValue::Null), other) => mistake(format!("must be an array of strings, not {}", other.kind())),
        (Some(_), _) => mistake("is given together with segment; a visit has one of them".to_owned()),
    }
}

/// Returns the name of `segment`.
fn one(segment: Option<FieldValue<'_>>) -> Result<Segments<'_>, Vec<FieldError>> {
    if matches!(segment, None | Some(FieldValue::Null)) {
        return Err(vec![FieldError::new("segment", "is required, or segments")]);
    }
    let name = text("segment", segment).and_then(SegmentName::parse);
    name.map(Segments::One).map_err(|error| vec![error])
}

/// Returns the names of a list.
fn names(items: Vec<FieldValue<'_>>) -> Result<Box<[SegmentName<'_>]>, Vec<FieldError>> {
    if items.is_empty() || items.len() > Segments::MAX {
        let why = match items.len() {
            0 => "must not be empty".to_owned(),
            _ => format!("has more than {} names, the limit", Segments::MAX),
        };
        return Err(vec![FieldError::new("segments", why)]);
    }
    let (mut names, mut errors) = (Vec::with_capacity(items.len()), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let name = match item {
            FieldValue::Text(text) => SegmentName::parse(text).map_err(|error| error.detail),
            other => Err(format!("must be a string, not {}", other.kind())),
        };
        match name {
            Ok(name) => names.push(name),
            Err(why) => errors.push(FieldError::new(Segments::field_in_list(index), why)),
        }
        if errors.len() == MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() { Ok(names.into()) } else { Err(errors) }
}

/// Returns the time of an optional field.
pub(super) fn time(field: &'static str, value: Option<FieldValue<'_>>) -> Result<Option<Timestamp>, FieldError> {
    const WANTED: &str = "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z";
    match value {
        None | Some(FieldValue::Null) => Ok(None),
        Some(FieldValue::Number(seconds)) => match Timestamp::from_given_seconds(seconds) {
            Ok(time) => Ok(Some(time)),
            Err(why) => Err(FieldError::new(field, why)),
        },
        Some(FieldValue::Text(text)) => match Timestamp::from_rfc3339(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(FieldError::new(field, WANTED)),
        },
        Some(other) => Err(FieldError::new(field, format!("{WANTED}, not {}", other.kind()))),
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    UserId,
    Segment,
    Segments,
    SeenAt,
    Unknown(String),
}

/// The mistake of a field that is repeated.
const REPEATED: &str = "is given more than once";

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with user_id, segment or segments, and optionally seen_at")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut raw = RawFields::default();
                while let Some(field) = map.next_key()? {
                    let (name, slot) = match field {
                        Field::UserId => ("user_id", &mut raw.user_id),
                        Field::Segment => ("segment", &mut raw.segment),
                        Field::SeenAt => ("seen_at", &mut raw.seen_at),
                        Field::Segments => {
                            if raw.segments.replace(map.next_value()?).is_some() {
                                raw.push_error(FieldError::new("segments", REPEATED));
                            }
                            continue;
                        }
                        Field::Unknown(name) if name == WEIGHT && raw.weight.is_none() => {
                            raw.weight = Some(map.next_value()?);
                            continue;
                        }
                        Field::Unknown(name) => {
                            map.next_value::<IgnoredAny>()?;
                            raw.push_error(FieldError::new(truncated(name), UNKNOWN));
                            continue;
                        }
                    };
                    if slot.replace(map.next_value()?).is_some() {
                        raw.push_error(FieldError::new(name, REPEATED));
                    }
                }
                Ok(raw)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
