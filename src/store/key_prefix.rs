//! The prefix of the keys of a data set.

/// The text that begins all keys of a data set, so that several share a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPrefix(Box<str>);

impl KeyPrefix {
    const MAX_BYTES: usize = 64;
    /// The kinds of keys that end in a segment's name.
    const OPEN_KINDS: [&str; 3] = ["segment:", "segment@", "history:"];

    /// Parses a prefix. An empty text means no prefix.
    ///
    /// # Errors
    ///
    /// What the prefix must not be, as a predicate: `must not ...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            return Err(format!("must not be longer than {} bytes", Self::MAX_BYTES));
        }
        if text.contains(['{', '}']) {
            return Err("must not contain braces: they select the slot of a key in a cluster".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters".to_owned());
        }
        if let Some(kind) = Self::OPEN_KINDS.into_iter().find(|kind| text.starts_with(kind)) {
            return Err(format!("must not begin with {kind}, as keys without a prefix do"));
        }
        Ok(Self(text.into()))
    }

    /// Returns the prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none("", true)]
    #[case::with_separator("prod:", true)]
    #[case::not_ascii("ё-", true)]
    #[case::longest(&"x".repeat(64), true)]
    #[case::too_long(&"x".repeat(65), false)]
    #[case::open_brace("a{b", false)]
    #[case::closed_brace("a}", false)]
    #[case::control("a\nb", false)]
    #[case::key_of_a_segment("segment:", false)]
    #[case::key_of_a_level("segment@7:", false)]
    #[case::key_of_a_history("history:x", false)]
    fn parse_refuses_ambiguous_prefixes(#[case] text: &str, #[case] is_valid: bool) {
        assert_eq!(KeyPrefix::parse(text).is_ok(), is_valid);
    }
}
