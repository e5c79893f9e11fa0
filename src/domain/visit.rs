//! Visits: the name of a segment, the ID of a user, and a time.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Timestamp;

/// A field that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name as the caller writes it.
    pub field: Cow<'static, str>,
    /// The predicate of a sentence about the field, such as "must not be empty".
    pub detail: String,
}

impl FieldError {
    /// Creates an error of `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }

    /// Joins `errors` in one line.
    #[must_use]
    pub fn list(errors: &[Self]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.detail)
    }
}

impl std::error::Error for FieldError {}

/// The name of a segment: 1 to 128 bytes of UTF-8, without control characters, and without white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName<'a>(Cow<'a, str>);

impl<'a> SegmentName<'a> {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Validates the name of a segment.
    ///
    /// # Errors
    ///
    /// A [`FieldError`] for `segment` with the rule that `text` breaks.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, FieldError> {
        check_name(text.into(), Self::MAX_BYTES).map(Self).map_err(|why| FieldError::new("segment", why))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Copies a borrowed name.
    #[must_use]
    pub fn into_owned(self) -> SegmentName<'static> {
        SegmentName(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Display for SegmentName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ID of a user: 1 to 256 bytes of UTF-8, without control characters, and without white space at either end.
///
/// `Debug` shows only the length, so that no ID reaches a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId<'a>(Cow<'a, str>);

impl<'a> UserId<'a> {
    /// The longest ID, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Validates the ID of a user.
    ///
    /// # Errors
    ///
    /// A [`FieldError`] for `user_id` with the rule that `text` breaks.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, FieldError> {
        check_name(text.into(), Self::MAX_BYTES).map(Self).map_err(|why| FieldError::new("user_id", why))
    }

    /// Returns the ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Copies a borrowed ID.
    #[must_use]
    pub fn into_owned(self) -> UserId<'static> {
        UserId(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for UserId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({} bytes)", self.0.len())
    }
}

fn check_name(text: Cow<'_, str>, max_bytes: usize) -> Result<Cow<'_, str>, String> {
    // Fast path for nearly every name: bytes from 0x21 to 0x7E are neither control characters nor white space.
    if (1..=max_bytes).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > max_bytes {
        return Err(format!("is {} bytes long; at most {max_bytes} are allowed", text.len()));
    }
    if let Some((at, control)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(format!("must not contain control characters; U+{:04X} is at byte {at}", u32::from(control)));
    }
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err("must not start or end with white space".to_owned());
    }
    Ok(text)
}

/// A user was seen in a segment. Borrows from the text that it was parsed from, or owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit<'a> {
    /// The user.
    pub user_id: UserId<'a>,
    /// The segment.
    pub segment: SegmentName<'a>,
    /// The time of the visit, never later than its arrival.
    pub seen_at: Timestamp,
}

impl<'a> Visit<'a> {
    /// How far a sender's clock may be ahead of the service's.
    pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

    /// Creates a visit that arrives at `now`. A missing `seen_at` is `now`. One that is up to [`Self::MAX_CLOCK_SKEW`]
    /// ahead is clamped to `now`.
    ///
    /// # Errors
    ///
    /// A [`FieldError`] for `seen_at` if it is further ahead.
    pub fn new(
        user_id: UserId<'a>,
        segment: SegmentName<'a>,
        seen_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, FieldError> {
        Ok(Self { user_id, segment, seen_at: Self::time_of_arrival(seen_at, now)? })
    }

    /// Returns the time of a visit that arrives at `now`.
    pub(super) fn time_of_arrival(seen_at: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, FieldError> {
        seen_at.map_or(Ok(now), |seen_at| Self::not_ahead("seen_at", seen_at, now))
    }

    /// Returns the `time` that a sender reports at `now`. One that is up to [`Self::MAX_CLOCK_SKEW`] ahead is clamped to
    /// `now`.
    ///
    /// # Errors
    ///
    /// A [`FieldError`] for `field` if it is further ahead.
    pub fn not_ahead(field: &'static str, time: Timestamp, now: Timestamp) -> Result<Timestamp, FieldError> {
        if time > now + Self::MAX_CLOCK_SKEW {
            let detail = format!("is {time}, more than 5 minutes ahead of this service's clock, {now}");
            return Err(FieldError::new(field, detail));
        }
        Ok(time.min(now))
    }

    /// Copies borrowed parts.
    #[must_use]
    pub fn into_owned(self) -> Visit<'static> {
        Visit { user_id: self.user_id.into_owned(), segment: self.segment.into_owned(), seen_at: self.seen_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("sports")]
    #[case::one_byte("s")]
    #[case::inner_space("sports news")]
    #[case::braces("{sports}")]
    #[case::separators("a:b/c%2Fd?e#f")]
    #[case::dots("..")]
    #[case::emoji("⚽️🏆")]
    #[case::cyrillic("спорт")]
    #[case::quotes("\"'\\`$;")]
    #[case::longest(&"n".repeat(128))]
    fn segment_name_parse_keeps_a_valid_name(#[case] text: &str) {
        assert_eq!(SegmentName::parse(text).unwrap().as_str(), text);
    }

    #[rstest]
    #[case::empty("", "must not be empty")]
    #[case::too_long(&"n".repeat(129), "is 129 bytes long; at most 128 are allowed")]
    #[case::too_long_in_bytes(&"é".repeat(65), "is 130 bytes long; at most 128 are allowed")]
    #[case::nul("a\0b", "must not contain control characters; U+0000 is at byte 1")]
    #[case::new_line("sports\n", "must not contain control characters; U+000A is at byte 6")]
    #[case::c1_control("é\u{85}", "must not contain control characters; U+0085 is at byte 2")]
    #[case::delete("\u{7f}", "must not contain control characters; U+007F is at byte 0")]
    #[case::space_before(" sports", "must not start or end with white space")]
    #[case::space_after("sports ", "must not start or end with white space")]
    #[case::no_break_space("sports\u{a0}", "must not start or end with white space")]
    #[case::ideographic_space("\u{3000}", "must not start or end with white space")]
    fn segment_name_parse_explains_a_rejection(#[case] text: &str, #[case] detail: &str) {
        assert_eq!(SegmentName::parse(text), Err(FieldError::new("segment", detail)));
    }

    #[test]
    fn user_id_parse_allows_256_bytes() {
        assert!(UserId::parse("u".repeat(256)).is_ok());
        let detail = "is 257 bytes long; at most 256 are allowed";
        assert_eq!(UserId::parse("u".repeat(257)), Err(FieldError::new("user_id", detail)));
    }

    #[test]
    fn debug_hides_the_user_id() {
        let visit = Visit::new(
            UserId::parse("u104010").unwrap(),
            SegmentName::parse("sports").unwrap(),
            None,
            Timestamp::from_millis(0),
        );
        assert!(!format!("{visit:?}").contains("u104010"));
    }

    const NOW: Timestamp = Timestamp::from_millis(1_763_805_600_000);

    #[rstest]
    #[case::absent(None, Some(0))]
    #[case::now(Some(0), Some(0))]
    #[case::earlier(Some(-1), Some(-1))]
    #[case::a_year_ago(Some(-31_536_000_000), Some(-31_536_000_000))]
    #[case::slightly_ahead(Some(1), Some(0))]
    #[case::five_minutes_ahead(Some(300_000), Some(0))]
    #[case::further_ahead(Some(300_001), None)]
    fn visit_new_clamps_seen_at_and_rejects_it_beyond_five_minutes(
        #[case] offset: Option<i64>,
        #[case] expected: Option<i64>,
    ) {
        let at = |offset| Timestamp::from_millis(NOW.as_millis() + offset);
        let visit =
            Visit::new(UserId::parse("u104010").unwrap(), SegmentName::parse("sports").unwrap(), offset.map(at), NOW);
        match expected {
            Some(expected) => assert_eq!(visit.unwrap().seen_at, at(expected)),
            None => assert_eq!(visit.unwrap_err().field, "seen_at"),
        }
    }

    proptest! {
        #[test]
        fn segment_name_parse_accepts_exactly_valid_names(text in ".{0,140}|[ a\u{0}\u{85}\u{a0}é]{0,4}") {
            let is_valid = (1..=128).contains(&text.len())
                && text.trim() == text
                && !text.chars().any(char::is_control);
            match SegmentName::parse(text.as_str()) {
                Ok(name) => prop_assert!(is_valid && name.as_str() == text),
                Err(error) => prop_assert!(!is_valid && error.field == "segment"),
            }
        }
    }
}
