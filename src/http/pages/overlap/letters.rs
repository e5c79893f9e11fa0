//! The letters that stand for the segments in charts and tables.

/// Returns the segments of a comparison, each with its letter.
pub fn lettered<'a>(names: &'a [&'a str]) -> impl Iterator<Item = (char, &'a str)> {
    ('A'..).zip(names.iter().copied())
}
