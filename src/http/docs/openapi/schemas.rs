//! Schemas of what is parsed by hand: names, times, visits, windows.
//!
//! JSON Schema counts characters. What is limited in bytes is told in words, beside the limit in characters that follows.

use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain;
use crate::estimator::overlap::Overlaps;
use crate::http::api::batch::MAX_ARRAY_VISITS;
use crate::http::api::{histogram, lists};
use crate::http::{docs, pages};

/// A name as [`SegmentName`](crate::domain::SegmentName) checks it. The pattern says: no control character, and none of Unicode's white
/// space at either end.
fn name(what: &str, max_bytes: usize) -> Object {
    const PATTERN: &str = concat!(
        "^[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000]",
        "([^\\u0000-\\u001F\\u007F-\\u009F]*",
        "[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000])?$"
    );
    let description = format!(
        "{what}: 1 to {max_bytes} bytes of UTF-8 (a character beyond ASCII has 2 to 4), without control characters, no white \
         space at either end."
    );
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description)).pattern(Some(PATTERN));
    text.min_length(Some(1)).max_length(Some(max_bytes)).build()
}

/// The name of a segment.
pub fn segment() -> Object {
    name("The name of a segment", domain::SegmentName::MAX_BYTES)
}

/// The id of a user.
pub fn user_id() -> Object {
    name("The id of a user", domain::UserId::MAX_BYTES)
}

/// What became of a visit.
pub fn visit_result() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["accepted", "expired"])).build()
}

/// The name of a segment.
pub struct SegmentName;

impl PartialSchema for SegmentName {
    fn schema() -> RefOr<Schema> {
        segment().into()
    }
}

impl ToSchema for SegmentName {}

/// Names of segments: so many, each another.
fn segments(least: usize, most: usize) -> RefOr<Schema> {
    let names = ArrayBuilder::new().items(segment()).unique_items(true);
    names.min_items(Some(least)).max_items(Some(most)).into()
}

/// The segments whose counts are asked for.
pub struct CountedSegments;

impl PartialSchema for CountedSegments {
    fn schema() -> RefOr<Schema> {
        segments(1, lists::MOST_COUNTS)
    }
}

impl ToSchema for CountedSegments {}

/// The segments of an overlap.
pub struct OverlapSegments;

impl PartialSchema for OverlapSegments {
    fn schema() -> RefOr<Schema> {
        segments(Overlaps::LEAST, Overlaps::MOST)
    }
}

impl ToSchema for OverlapSegments {}

/// The id of a user.
pub struct UserId;

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        user_id().into()
    }
}

impl ToSchema for UserId {}

/// When a visit was.
pub struct SeenAt;

impl PartialSchema for SeenAt {
    fn schema() -> RefOr<Schema> {
        let seconds = ObjectBuilder::new().schema_type(Type::Number).maximum(Some(1e11));
        let date = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let description = "When the user was seen: Unix seconds, fractions allowed, or an RFC 3339 time. Without it, or with \
                           null, the time of the request counts. Up to 5 minutes ahead of the service's clock it is taken \
                           as now, and further ahead it is an error. Of two visits of a user to a segment the later one \
                           wins, in whatever order they arrive. Send it if the request may be repeated: without it the time \
                           of the repetition counts.";
        let any = OneOfBuilder::new()
            .item(seconds.description(Some("Unix seconds.")))
            .item(date.description(Some("RFC 3339.")))
            .item(ObjectBuilder::new().schema_type(Type::Null).description(Some("Now.")));
        any.description(Some(description)).into()
    }
}

impl ToSchema for SeenAt {}

/// A user was seen in a segment.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a description; `visit_json` reads visits")]
pub struct Visit {
    user_id: UserId,
    segment: SegmentName,
    #[schema(required = false)]
    seen_at: SeenAt,
}

/// Visits as an array.
pub struct Visits;

impl PartialSchema for Visits {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(Ref::from_schema_name("Visit")).max_items(Some(MAX_ARRAY_VISITS)).into()
    }
}

impl ToSchema for Visits {}

/// Visits as lines.
pub struct Lines;

impl PartialSchema for Lines {
    fn schema() -> RefOr<Schema> {
        let description = "One visit a line, as JSON. The line ends with LF or CR LF; empty lines are passed over.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.content_media_type("application/x-ndjson").content_schema(Some(Ref::from_schema_name("Visit"))).into()
    }
}

impl ToSchema for Lines {}

/// A file of `/docs`.
pub struct DocsFile;

impl PartialSchema for DocsFile {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(docs::FILES)).into()
    }
}

impl ToSchema for DocsFile {}

/// The order of the segments on a page.
pub struct PageOrder;

impl PartialSchema for PageOrder {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["count", "name"])).into()
    }
}

impl ToSchema for PageOrder {}

/// How far back a page goes.
pub struct PageDays;

impl PartialSchema for PageDays {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["1", "7", "14", "90", "395"])).into()
    }
}

impl ToSchema for PageDays {}

/// A file of the pages.
pub struct PagesFile;

impl PartialSchema for PagesFile {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(pages::NAMES)).into()
    }
}

impl ToSchema for PagesFile {}

/// A window of time.
pub struct Window;

impl PartialSchema for Window {
    fn schema() -> RefOr<Schema> {
        const PATTERN: &str =
            "^([0-9]+(\\.[0-9]+)? ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?) ?)+$";
        let description = "A duration such as `14d`, `36h` or `1h 30m`: a whole number of seconds, at least one.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.pattern(Some(PATTERN)).into()
    }
}

impl ToSchema for Window {}

/// A point in time, in a query.
pub struct Time;

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        const PATTERN: &str = "^(-?[0-9]{1,10}(\\.[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?\
                               ([Zz]|[+-][0-9]{2}:[0-9]{2}))$";
        let description = "Unix seconds, fractions allowed, or an RFC 3339 time, such as `2026-11-22T10:00:00Z`.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.pattern(Some(PATTERN)).into()
    }
}

impl ToSchema for Time {}

/// How many segments a page of a list has.
pub struct ListLimit;

impl PartialSchema for ListLimit {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(1)).maximum(Some(lists::MOST)).default(Some(lists::USUAL.into())).into()
    }
}

impl ToSchema for ListLimit {}

/// How many parts a histogram has.
pub struct HistogramBuckets;

impl PartialSchema for HistogramBuckets {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(1)).maximum(Some(histogram::MOST)).default(Some(histogram::USUAL.into())).into()
    }
}

impl ToSchema for HistogramBuckets {}

/// What names begin with.
pub struct Prefix;

impl PartialSchema for Prefix {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.max_length(Some(domain::SegmentName::MAX_BYTES)).into()
    }
}

impl ToSchema for Prefix {}

/// A problem with the report of a batch in it: `problem` and `report` in one object.
pub fn batch_problem(mut problem: Object, report: Object) -> Object {
    let line = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).description(Some(
        "Every line up to this one needs no repetition. What comes after it may have been written or not.",
    ));
    problem.description = Some("An error in the middle of a batch, with what became of it so far.".to_owned());
    problem.properties.extend(report.properties);
    problem.required.extend(report.required);
    problem.properties.insert("done_through_line".to_owned(), line.into());
    problem.required.push("done_through_line".to_owned());
    problem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Characters that matter to names, and any others.
    fn character() -> impl Strategy<Value = char> {
        let special = "\0\t\n\r \u{1F}\u{7F}\u{80}\u{85}\u{9F}\u{A0}\u{AD}\u{1680}\u{180E}\u{2000}\u{200A}\u{200B}\u{2028}\u{2029}\
                       \u{202F}\u{205F}\u{3000}\u{FEFF}az";
        prop_oneof![prop::sample::select(special.chars().collect::<Vec<_>>()), any::<char>()]
    }

    proptest! {
        #[test]
        fn the_pattern_of_a_name_is_what_is_parsed(characters in prop::collection::vec(character(), 0..20)) {
            let name: String = characters.into_iter().collect();
            let schema = serde_json::to_value(segment()).unwrap();
            let is_valid = jsonschema::draft202012::is_valid(&schema, &name.clone().into());
            prop_assert_eq!(is_valid, domain::SegmentName::parse(name).is_ok());
        }
    }

    #[test]
    fn windows_are_of_the_pattern() {
        let schema = serde_json::to_value(Window::schema()).unwrap();
        for (window, is_one) in [
            ("14d", true),
            ("1h 30m", true),
            ("1.5 hours", true),
            ("2weeks 3days", true),
            ("14", false),
            ("d", false),
            ("", false),
        ] {
            assert_eq!(jsonschema::draft202012::is_valid(&schema, &window.into()), is_one, "{window}");
            assert_eq!(crate::domain::Window::parse(window).is_ok(), is_one, "{window}");
        }
    }
}
