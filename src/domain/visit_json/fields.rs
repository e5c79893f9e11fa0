//! The fields of a visit as they are in its JSON: of any type, repeated or unknown.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::{FieldError, SegmentName, Segments, Timestamp};

/// The limit on the errors of one kind: the answer must not be a multiple of the request.
const MAX_ERRORS: usize = 10;

/// The fields before validation, and the mistakes in their names.
#[derive(Default)]
pub(super) struct RawFields<'de> {
    pub(super) user_id: Option<FieldValue<'de>>,
    pub(super) segment: Option<FieldValue<'de>>,
    pub(super) segments: Option<FieldValue<'de>>,
    pub(super) seen_at: Option<FieldValue<'de>>,
    pub(super) errors: Vec<FieldError>,
}

impl<'de> RawFields<'de> {
    /// Adds an error, up to a limit.
    fn push_error(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

/// Truncates the name of an unknown field.
fn truncated(mut name: String) -> String {
    const MAX: usize = 64;
    if name.len() > MAX {
        name.truncate(name.floor_char_boundary(MAX));
        name.push('…');
    }
    name
}

/// The value of a field, or only its kind if no field takes it.
pub(super) enum FieldValue<'de> {
    Null,
    Text(Cow<'de, str>),
    Number(f64),
    Boolean,
    /// The first items, up to one more than a list may have. Only `segments` keeps them.
    Array(Box<[FieldValue<'de>]>),
    Object,
}

impl FieldValue<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean => "a boolean",
            Self::Array(_) => "an array",
            Self::Object => "an object",
        }
    }
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
    segments: Option<FieldValue<'de>>,
) -> Result<Segments<'de>, Vec<FieldError>> {
    let is_given = |value: &FieldValue<'_>| !matches!(value, FieldValue::Null);
    match (segment.filter(is_given), segments.filter(is_given)) {
        (segment @ Some(_), None) => {
            let name = text("segment", segment).and_then(SegmentName::parse);
            name.map(Segments::One).map_err(|error| vec![error])
        }
        (None, Some(FieldValue::Array(items))) => list(items).map(Segments::List),
        (segment, segments) => Err(vec![match (segment, segments) {
            (None, None) => FieldError::new("segment", "is required, or segments"),
            (None, Some(other)) => {
                FieldError::new("segments", format!("must be an array of strings, not {}", other.kind()))
            }
            (Some(_), _) => FieldError::new("segments", "is given together with segment; a visit has one of them"),
        }]),
    }
}

/// Returns the names of a list.
fn list(items: Box<[FieldValue<'_>]>) -> Result<Vec<SegmentName<'_>>, Vec<FieldError>> {
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
    if errors.is_empty() { Ok(names) } else { Err(errors) }
}

/// Returns the time of an optional field.
pub(super) fn time(field: &'static str, value: Option<FieldValue<'_>>) -> Result<Option<Timestamp>, FieldError> {
    const WANTED: &str = "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z";
    /// Larger numbers are milliseconds: those since 1973 are larger, and the year 5138 is no plausible time of a visit.
    const YEAR_5138: f64 = 1e11;
    match value {
        None | Some(FieldValue::Null) => Ok(None),
        Some(FieldValue::Number(seconds)) if seconds > YEAR_5138 => {
            Err(FieldError::new(field, "is too large: Unix time is in seconds here, not in milliseconds"))
        }
        Some(FieldValue::Number(seconds)) => Ok(Some(Timestamp::from_unix_seconds(seconds))),
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
                    let (name, slot, keeps_items) = match field {
                        Field::UserId => ("user_id", &mut raw.user_id, false),
                        Field::Segment => ("segment", &mut raw.segment, false),
                        Field::Segments => ("segments", &mut raw.segments, true),
                        Field::SeenAt => ("seen_at", &mut raw.seen_at, false),
                        Field::Unknown(name) => {
                            map.next_value::<IgnoredAny>()?;
                            let detail =
                                "is not a field of a visit; those are user_id, segment or segments, and seen_at";
                            raw.push_error(FieldError::new(truncated(name), detail));
                            continue;
                        }
                    };
                    if slot.replace(map.next_value_seed(AnyValue { keeps_items })?).is_some() {
                        raw.push_error(FieldError::new(name, "is given more than once"));
                    }
                }
                Ok(raw)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for FieldValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyValue { keeps_items: false }.deserialize(deserializer)
    }
}

/// Reads a [`FieldValue`]. Skips what it doesn't keep without recursion.
#[derive(Clone, Copy)]
struct AnyValue {
    /// Whether the items of an array are kept.
    keeps_items: bool,
}

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = FieldValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = FieldValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(FieldValue::Null)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(FieldValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(FieldValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(FieldValue::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(FieldValue::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(FieldValue::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(FieldValue::Boolean)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while self.keeps_items && items.len() <= Segments::MAX {
            match seq.next_element_seed(Self { keeps_items: false })? {
                Some(item) => items.push(item),
                None => return Ok(FieldValue::Array(items.into())),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Array(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Object)
    }
}
