//! Time ranges of the history on pages.

use std::time::Duration;

/// Time ranges in days, with their labels.
pub const RANGES: [(u64, &str); 5] =
    [(1, "1 day"), (7, "7 days"), (DEFAULT_DAYS, DEFAULT_LABEL), (90, "3 months"), (395, "13 months")];
pub const DEFAULT_DAYS: u64 = 14;
pub const DEFAULT_LABEL: &str = "14 days";

/// Parses a range in days.
pub fn parse(text: &str) -> Result<u64, String> {
    let known = RANGES.iter().map(|(days, _)| *days).find(|days| days.to_string() == text);
    known.ok_or_else(|| format!("must be one of {}", RANGES.map(|(days, _)| days.to_string()).join(", ")))
}

pub const fn duration(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}
