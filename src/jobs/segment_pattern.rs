//! Patterns that select the segments of the setting `metered_segments`.

use std::fmt;

use crate::domain::SegmentName;

/// One of the patterns of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentPattern {
    /// The segment of this name.
    Name(SegmentName<'static>),
    /// The segments whose names begin with this text.
    Prefix(String),
    /// The segments with the most users: this many.
    Largest(usize),
}

/// A character of a list, and whether a backslash precedes it.
type Char = (char, bool);

impl SegmentPattern {
    /// The most segments that are selected.
    pub const MAX_SEGMENTS: usize = 100;

    /// Begins the pattern of the largest segments.
    const LARGEST: &str = "top:";
    /// Characters that have a meaning, which a backslash takes away.
    const SPECIAL: [char; 4] = [',', '*', ':', '\\'];

    /// Parses a comma-separated list, such as `sports, news*, top:20`.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the list.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let chars = unescape(text)?;
        let parts = chars.split(|part| *part == (',', false)).map(|part| Self::parse(trim(part)));
        let patterns = parts.collect::<Result<Vec<_>, _>>()?;
        let names = patterns.iter().filter(|pattern| matches!(pattern, Self::Name(_))).count();
        if names > Self::MAX_SEGMENTS {
            return Err(format!("has {names} names; at most {} segments are measured", Self::MAX_SEGMENTS));
        }
        Ok(patterns)
    }

    fn parse(chars: &[Char]) -> Result<Self, String> {
        let text: String = chars.iter().map(|(char, _)| char).collect();
        let is_special = |at: usize| chars.get(at).is_some_and(|(_, is_escaped)| !is_escaped);
        if let Some(number) = text.strip_prefix(Self::LARGEST).filter(|_| is_special(Self::LARGEST.len() - 1)) {
            let number = number.parse().ok().filter(|number| (1..=Self::MAX_SEGMENTS).contains(number));
            return number.map(Self::Largest).ok_or_else(|| {
                let max = Self::MAX_SEGMENTS;
                format!(r#"has "{text}", which is not top: with a number from 1 to {max}; a name is written top\:"#)
            });
        }
        let Some(star) = chars.iter().position(|char| *char == ('*', false)) else {
            return SegmentName::parse(text)
                .map(Self::Name)
                .map_err(|error| format!("has a name that {}", error.detail));
        };
        if star + 1 < chars.len() {
            return Err(format!(
                r#"has "{text}" with a * before the end; at the end it stands for any text, and \* for the character"#
            ));
        }
        let prefix: String = chars[..star].iter().map(|(char, _)| char).collect();
        // A prefix may end in a space, as no name does.
        SegmentName::parse(format!("{prefix}x")).map_err(|error| format!("has a prefix that {}", error.detail))?;
        Ok(Self::Prefix(prefix))
    }
}

/// Writes the pattern as it is parsed.
impl fmt::Display for SegmentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, end) = match self {
            Self::Largest(number) => return write!(f, "{}{number}", Self::LARGEST),
            Self::Name(name) => (name.as_str(), ""),
            Self::Prefix(prefix) => (prefix.as_str(), "*"),
        };
        for char in text.chars() {
            let is_special = match char {
                ':' => text.starts_with(Self::LARGEST),
                char => Self::SPECIAL.contains(&char),
            };
            write!(f, "{}{char}", if is_special { "\\" } else { "" })?;
        }
        f.write_str(end)
    }
}

/// Removes the backslashes that escape a character.
fn unescape(text: &str) -> Result<Vec<Char>, String> {
    let (mut chars, mut unescaped) = (text.chars(), Vec::new());
    while let Some(char) = chars.next() {
        unescaped.push(match char {
            '\\' => match chars.next() {
                Some(char) if SegmentPattern::SPECIAL.contains(&char) => (char, true),
                _ => return Err(r"has a \ that is not part of \*, \:, \, or \\".to_owned()),
            },
            char => (char, false),
        });
    }
    Ok(unescaped)
}

/// Removes white space at both ends.
fn trim(chars: &[Char]) -> &[Char] {
    let is_text = |(char, _): &Char| !char.is_whitespace();
    let start = chars.iter().position(is_text).unwrap_or(chars.len());
    let end = chars.iter().rposition(is_text).map_or(start, |last| last + 1);
    &chars[start..end]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::SegmentPattern::{Largest, Prefix};
    use super::*;

    fn name(text: &str) -> SegmentPattern {
        SegmentPattern::Name(SegmentName::parse(text.to_owned()).unwrap())
    }

    #[rstest]
    #[case::names("sports, a b", vec![name("sports"), name("a b")])]
    #[case::prefix("news*", vec![Prefix("news".to_owned())])]
    #[case::all("*", vec![Prefix(String::new())])]
    #[case::prefix_with_a_space("my *", vec![Prefix("my ".to_owned())])]
    #[case::largest("top:20,top:100", vec![Largest(20), Largest(100)])]
    #[case::names_with_special_characters(
        r"5\*,a\,b,top\:5,c\\d",
        vec![name("5*"), name("a,b"), name("top:5"), name(r"c\d")]
    )]
    #[case::prefix_with_special_characters(r"5\**", vec![Prefix("5*".to_owned())])]
    #[case::colon_elsewhere("eu:sports,stop:5", vec![name("eu:sports"), name("stop:5")])]
    fn parse_list_reads_names_prefixes_and_numbers(#[case] text: &str, #[case] expected: Vec<SegmentPattern>) {
        assert_eq!(SegmentPattern::parse_list(text), Ok(expected.clone()));
        let shown = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(SegmentPattern::parse_list(&shown), Ok(expected), "{shown}");
    }
}
