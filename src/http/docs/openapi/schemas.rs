//! Schemas of names, times and visits, which the service parses by hand.
//!
//! JSON Schema counts characters. Limits in bytes are stated in the description, beside the limit in characters that
//! follows from them.

use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{
    ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, RefOr, Schema, SchemaFormat, Type,
};

use crate::domain;
use crate::estimator::overlap::Overlaps;

/// Declares a type with a schema, where an attribute of utoipa takes only a type.
macro_rules! schema_type {
    ($name:ident = $schema:expr) => {
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $schema.into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use schema_type;

schema_type!(SegmentName = segment());
schema_type!(UserId = user_id());
schema_type!(Window = window());
schema_type!(Time = time());
schema_type!(UserLine = user_line());
schema_type!(SegmentOrder = one_of(["-change", "change", "count", "name", "new"]));
schema_type!(AudienceSegments = segments(1, Overlaps::MAX_SEGMENTS));
schema_type!(OverlapSegments = segments(Overlaps::MIN_SEGMENTS, Overlaps::MAX_SEGMENTS));

schema_type!(Flag = ObjectBuilder::new().schema_type(Type::Boolean).default(Some(false.into())));
schema_type!(Visit = visit());

/// Returns the schema of a visit to one segment, or to several.
fn visit() -> OneOfBuilder {
    let null = || ObjectBuilder::new().schema_type(Type::Null).build();
    let names = ArrayBuilder::new().items(segment()).min_items(Some(1)).max_items(Some(domain::Segments::MAX));
    let names = names.description(Some(
        "The names of up to 100 segments. Each is a visit at the same time. If one name is invalid, no visit is written. A name \
         that is repeated makes no difference, except that it counts twice in a report.",
    ));
    let object = |title: &str, (name, schema): (&str, RefOr<Schema>), other: &str| {
        let object = ObjectBuilder::new().title(Some(title)).property("user_id", user_id()).property(name, schema);
        let object = object.property(other, null()).property("seen_at", seen_at());
        object.required("user_id").required(name).additional_properties(Some(AdditionalProperties::FreeForm(false)))
    };
    let one = object("One segment", ("segment", segment().into()), "segments");
    let several = object("Several segments", ("segments", names.into()), "segment");
    OneOfBuilder::new().item(one).item(several).description(Some("A user was seen in a segment, or in several."))
}

/// Returns the schema of a segment's name.
pub fn segment() -> Object {
    name("The name of a segment", domain::SegmentName::MAX_BYTES)
}

/// Returns the schema of the member `known`.
pub fn known() -> Object {
    let description =
        "Whether the service knows the segment: it has users, had some until the last pruning, or has a history.";
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(description)).build()
}

/// Returns the schema of a user's id.
pub fn user_id() -> Object {
    name("The id of a user", domain::UserId::MAX_BYTES)
}

/// The pattern of a name: no control characters, and no Unicode white space at either end.
const NAME: &str = concat!(
    "[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000]",
    "([^\\u0000-\\u001F\\u007F-\\u009F]*",
    "[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000])?"
);

/// Returns the schema of a line of a list of users, from which another list continues.
fn user_line() -> Object {
    const TIME: &str =
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})";
    let description = "An RFC 3339 time and the id of a user, with a comma between them.";
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    text.pattern(Some(format!("^{TIME},{NAME}$"))).build()
}

/// Returns the schema of a name.
fn name(what: &str, max_bytes: usize) -> Object {
    let description = format!(
        "{what}: 1 to {max_bytes} bytes of UTF-8 (a character beyond ASCII has 2 to 4), without control characters, and without \
         white space at either end."
    );
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    let text = text.pattern(Some(format!("^{NAME}$")));
    text.min_length(Some(1)).max_length(Some(max_bytes)).build()
}

/// Returns the schema of `min` to `max` different segments.
pub fn segments(min: usize, max: usize) -> ArrayBuilder {
    ArrayBuilder::new().items(segment()).unique_items(true).min_items(Some(min)).max_items(Some(max))
}

/// Returns the schema of a text of at most `max_length` characters.
pub fn text(max_length: usize) -> Object {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(max_length)).build()
}

/// Returns the schema of a text that is one of `values`.
pub fn one_of<T: Into<serde_json::Value>, const N: usize>(values: [T; N]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// Returns the schema of a number from 1 to `max`.
pub fn integer(max: usize, default: usize) -> Object {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    number.minimum(Some(1)).maximum(Some(max)).default(Some(default.into())).build()
}

fn window() -> Object {
    const PATTERN: &str =
        "^([0-9]+(\\.[0-9]+)? ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?) ?)+$";
    let description = "A duration such as `14d`, `36h` or `1h 30m`: a whole number of seconds, at least one.";
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    text.pattern(Some(PATTERN)).build()
}

fn time() -> Object {
    const PATTERN: &str = "^(-?[0-9]{1,10}(\\.[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?\
                           ([Zz]|[+-][0-9]{2}:[0-9]{2})|[0-9]{4}-[0-9]{2}-[0-9]{2}|\
                           -([0-9]+(\\.[0-9]+)? ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?) ?)+)$";
    let description = "Unix seconds, fractions allowed; an RFC 3339 time, such as `2026-11-22T10:00:00Z`; a date, such as \
                       `2026-11-22`, which is its midnight in UTC; or a time before now, such as `-7d`.";
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    text.pattern(Some(PATTERN)).build()
}

fn seen_at() -> OneOfBuilder {
    let seconds = ObjectBuilder::new().schema_type(Type::Number).maximum(Some(1e11));
    let date =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let description = "The time of the visit: Unix seconds, fractions allowed, or an RFC 3339 time. Without it, or with null, the \
                       time of the request counts. A time up to 5 minutes ahead of the service's clock counts as now; a later one \
                       is an error. Of two visits of a user to a segment the later one wins, in whatever order they arrive. Send \
                       it if the request may be repeated: without it the time of the repetition counts.";
    let any = OneOfBuilder::new()
        .item(seconds.description(Some("Unix seconds.")))
        .item(date.description(Some("RFC 3339.")))
        .item(ObjectBuilder::new().schema_type(Type::Null).description(Some("Now.")));
    any.description(Some(description))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that matter to names, and arbitrary ones.
    fn character() -> impl Strategy<Value = char> {
        let special = "\0\t\n\r \u{1F}\u{7F}\u{80}\u{85}\u{9F}\u{A0}\u{AD}\u{1680}\u{180E}\u{2000}\u{200A}\u{200B}\u{2028}\u{2029}\
                       \u{202F}\u{205F}\u{3000}\u{FEFF}az";
        prop_oneof![prop::sample::select(special.chars().collect::<Vec<_>>()), any::<char>()]
    }

    proptest! {
        #[test]
        fn name_pattern_accepts_what_is_parsed(characters in prop::collection::vec(character(), 0..20)) {
            let name: String = characters.into_iter().collect();
            let schema = serde_json::to_value(segment()).unwrap();
            let is_valid = jsonschema::draft202012::is_valid(&schema, &name.clone().into());
            prop_assert_eq!(is_valid, domain::SegmentName::parse(name).is_ok());
        }
    }

    #[test]
    fn window_pattern_accepts_what_is_parsed() {
        let schema = serde_json::to_value(window()).unwrap();
        for (window, is_one) in [
            ("14d", true),
            ("1h 30m", true),
            ("1.5 hours", true),
            ("2weeks 3days", true),
            ("14", false),
            ("14M", false),
            ("2years", false),
            ("d", false),
            ("", false),
        ] {
            assert_eq!(jsonschema::draft202012::is_valid(&schema, &window.into()), is_one, "{window}");
            assert_eq!(crate::domain::Window::parse(window).is_ok(), is_one, "{window}");
        }
    }

    #[test]
    fn time_pattern_accepts_what_is_parsed() {
        let schema = serde_json::to_value(time()).unwrap();
        for (time, is_one) in [
            ("1795341600", true),
            ("-1.5", true),
            ("2026-11-22T10:00:00Z", true),
            ("2026-11-22t10:00:00.250z", true),
            ("2026-11-22T10:00:00+01:00", true),
            ("2026-11-22", true),
            ("-7d", true),
            ("-1h 30m", true),
            ("-1.5 hours", true),
            ("7d", false),
            ("+7d", false),
            ("--7d", false),
            ("-14M", false),
            ("2026-11", false),
            ("2026-1-2", false),
            ("2026-11-22T10:00:00", false),
            ("2026-11-22T10:00Z", false),
            ("now", false),
            ("NaN", false),
            ("", false),
        ] {
            assert_eq!(jsonschema::draft202012::is_valid(&schema, &time.into()), is_one, "{time}");
            assert_eq!(crate::http::extract::time::QueryTime::parse(time).is_ok(), is_one, "{time}");
        }
    }
}
