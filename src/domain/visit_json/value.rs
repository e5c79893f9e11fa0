//! The values of fields as they are in the JSON: of any type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::Segments;

/// The value of a field, or only its kind if no field takes it.
pub(super) enum FieldValue<'de> {
    Null,
    Text(Cow<'de, str>),
    Number(f64),
    Boolean,
    Array,
    Object,
}

/// The value of a field that takes a list.
pub(super) struct ListValue<'de> {
    pub(super) value: FieldValue<'de>,
    /// The first items of an array, up to one more than a list may have.
    pub(super) items: Vec<FieldValue<'de>>,
}

impl FieldValue<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for FieldValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyValue(ItemsOfField).deserialize(deserializer)
    }
}

impl<'de> Deserialize<'de> for ListValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut items = Vec::new();
        let value = AnyValue(&mut items).deserialize(deserializer)?;
        Ok(Self { value, items })
    }
}

/// The items of an array.
///
/// Each place that reads a value has a type of its own. So the compiler inlines the code for the fields of nearly all
/// visits. With shared code, parsing a visit takes a tenth longer (measured).
trait Items<'de> {
    /// Reads the items that are kept. The others are skipped.
    fn keep<A: SeqAccess<'de>>(self, _: &mut A) -> Result<(), A::Error>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// Keeps no items of an array in a field that takes none.
struct ItemsOfField;

impl Items<'_> for ItemsOfField {}

/// Keeps no items of an array in a list.
struct ItemsOfItem;

impl Items<'_> for ItemsOfItem {}

/// Keeps the first items of a list.
impl<'de> Items<'de> for &mut Vec<FieldValue<'de>> {
    fn keep<A: SeqAccess<'de>>(self, seq: &mut A) -> Result<(), A::Error> {
        while self.len() <= Segments::MAX
            && let Some(item) = seq.next_element_seed(AnyValue(ItemsOfItem))?
        {
            self.push(item);
        }
        Ok(())
    }
}

/// Reads a [`FieldValue`]. Skips what is not kept, without recursion.
struct AnyValue<I>(I);

impl<'de, I: Items<'de>> DeserializeSeed<'de> for AnyValue<I> {
    type Value = FieldValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, I: Items<'de>> Visitor<'de> for AnyValue<I> {
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
        self.0.keep(&mut seq)?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Object)
    }
}
