//! Time ranges of the history on pages.

use std::time::Duration;

use crate::domain::Timestamp;

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

/// Returns the ranges that a history since `first` fills, and the next longer one, which has all of it. Without a known
/// first sample, returns all.
pub fn offered(first: Option<Timestamp>, now: Timestamp) -> &'static [(u64, &'static str)] {
    let is_filled = |days: u64| first.is_none_or(|first| first <= now - duration(days));
    let filled = RANGES.iter().take_while(|(days, _)| is_filled(*days)).count();
    &RANGES[..RANGES.len().min(filled + 1)]
}

/// Returns the start of a chart of `days`: not before the first sample, but at least an hour ago.
pub fn start(days: u64, first: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let from = now - duration(days);
    let latest = now - Duration::from_secs(3_600);
    first.map_or(from, |first| from.max(first.min(latest)))
}

pub const fn duration(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::unknown(None, &[1, 7, 14, 90, 395], 14 * 24)]
    #[case::just_begun(Some(0), &[1], 1)]
    #[case::hours(Some(5), &[1], 5)]
    #[case::three_days(Some(72), &[1, 7], 72)]
    #[case::exactly_a_week(Some(7 * 24), &[1, 7, 14], 7 * 24)]
    #[case::a_month(Some(30 * 24), &[1, 7, 14, 90], 14 * 24)]
    #[case::a_year(Some(360 * 24), &[1, 7, 14, 90, 395], 14 * 24)]
    fn ranges_are_offered_as_far_as_the_history_goes(
        #[case] hours_ago: Option<u64>,
        #[case] expected: &[u64],
        #[case] shown_hours: u64,
    ) {
        let now = Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let first = hours_ago.map(|ago| now - hours(ago));
        assert_eq!(offered(first, now).iter().map(|(days, _)| *days).collect::<Vec<_>>(), expected);
        assert_eq!(start(DEFAULT_DAYS, first, now), now - hours(shown_hours));
    }
}
