//! Formats numbers, times and durations for people. All times are UTC.

mod estimates;

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

pub use self::estimates::{change, counted_users, counted_users_with_error, error, share_of, users};
use crate::domain::Timestamp;

/// Formats a number with thousands separators: `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a count with its noun: `1 user`, `2 users`.
pub fn counted(count: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", number(count), if count == 1 { singular } else { plural })
}

/// Formats a number for an axis: `0`, `250`, `1.5k`, `20k`, `3M`.
pub fn short(number: f64) -> String {
    let (divisor, unit) = match number.abs() {
        size if size >= 1e9 => (1e9, "G"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    // Ticks are round numbers with fewer than three decimals.
    let text = format!("{:.3}", number / divisor);
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Formats `part` as a percentage of `whole`: `0%`, `<0.1%`, `12.5%`, `>99.9%`, `100%`, or `–` if `whole` is 0.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let percent = part as f64 / whole as f64 * 100.0;
    match percent {
        _ if part == 0 => "0%".to_owned(),
        _ if part == whole => "100%".to_owned(),
        percent if percent < 0.05 => "<0.1%".to_owned(),
        percent if percent >= 99.95 => ">99.9%".to_owned(),
        percent => format!("{percent:.1}%"),
    }
}

/// Formats a factor: `0×`, `<0.01×`, `0.85×`, `12.5×`, `1,200×`.
pub fn factor(factor: f64) -> String {
    match factor {
        0.0 => "0×".to_owned(),
        small if small < 0.01 => "<0.01×".to_owned(),
        large if large >= 99.95 => format!("{}×", number(large.round() as u64)),
        factor => {
            let text = if factor < 9.995 { format!("{factor:.2}") } else { format!("{factor:.1}") };
            format!("{}×", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// Formats a relative change: `-5.2%`, `+<0.1%`, `+1,250%`.
pub fn relative_change(relative: f64) -> String {
    let sign = if relative < 0.0 { '-' } else { '+' };
    match relative.abs() * 100.0 {
        percent if percent < 0.05 => format!("{sign}<0.1%"),
        percent if percent < 999.95 => format!("{sign}{percent:.1}%"),
        percent => format!("{sign}{}%", number(percent.round() as u64)),
    }
}

/// Formats the day: `22 Nov`.
pub fn day(at: Timestamp) -> String {
    format(at, "%-d %b")
}

/// Formats the year: `2026`.
pub fn year(at: Timestamp) -> String {
    format(at, "%Y")
}

/// Formats the month: `Nov 2026`.
pub fn month(at: Timestamp) -> String {
    format(at, "%b %Y")
}

/// Formats the day with its year: `22 Nov 2026`.
pub fn date(at: Timestamp) -> String {
    format(at, "%-d %b %Y")
}

/// Formats the time of day: `10:00`.
pub fn hour(at: Timestamp) -> String {
    format(at, "%H:%M")
}

/// Formats the time of day with seconds: `10:00:05`.
pub fn second(at: Timestamp) -> String {
    format(at, "%H:%M:%S")
}

/// Formats a time to the minute: `22 Nov 10:00`.
pub fn minute(at: Timestamp) -> String {
    format(at, "%-d %b %H:%M")
}

/// Formats a time for the `datetime` attribute of HTML.
pub fn machine(at: Timestamp) -> String {
    at.to_string()
}

/// Formats a time to the second for a query: `2026-11-22T10:00:00Z`.
pub fn query_time(at: Timestamp) -> String {
    format(at, "%Y-%m-%dT%H:%M:%SZ")
}

/// Renders a time to the minute as a `time` element.
pub fn marked(at: Timestamp) -> Markup {
    html! { time datetime=(machine(at)) { (minute(at)) } }
}

fn format(at: Timestamp, format: &str) -> String {
    match DateTime::<Utc>::from_timestamp_millis(at.as_millis()) {
        Some(time) => time.format(format).to_string(),
        None => machine(at),
    }
}

/// Returns the largest unit that divides `span`: its length in seconds, its singular and its plural.
pub fn unit_of(span: Duration) -> (u64, &'static str, &'static str) {
    let units = [(86_400, "day", "days"), (3_600, "hour", "hours"), (60, "minute", "minutes")];
    let found = units.into_iter().find(|(unit, ..)| span.as_secs().is_multiple_of(*unit));
    found.unwrap_or((1, "second", "seconds"))
}

/// Formats a duration in its largest unit: `14 days`, `1 hour`.
pub fn span(span: Duration) -> String {
    let (unit, singular, plural) = unit_of(span);
    counted(span.as_secs() / unit, singular, plural)
}

/// Formats a duration that ends now: `last 14 days`, `last 24 hours`, `last hour`.
pub fn last(duration: Duration) -> String {
    if duration.as_secs() == 86_400 {
        return "last 24 hours".to_owned();
    }
    let (unit, singular, _) = unit_of(duration);
    if duration.as_secs() == unit { format!("last {singular}") } else { format!("last {}", span(duration)) }
}

/// Formats an interval to follow “every”: `hour`, `2 hours`.
pub fn every(interval: Duration) -> String {
    let (unit, singular, _) = unit_of(interval);
    if interval.as_secs() == unit { singular.to_owned() } else { span(interval) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1_000, "1,000")]
    #[case(1_234_567, "1,234,567")]
    #[case(u64::MAX, "18,446,744,073,709,551,615")]
    fn number_has_thousands_separators(#[case] value: u64, #[case] text: &str) {
        assert_eq!(number(value), text);
    }

    #[rstest]
    #[case(0.0, "0")]
    #[case(2.5, "2.5")]
    #[case(250.0, "250")]
    #[case(1_500.0, "1.5k")]
    #[case(20_000.0, "20k")]
    #[case(3_000_000.0, "3M")]
    fn short_abbreviates_numbers(#[case] value: f64, #[case] text: &str) {
        assert_eq!(short(value), text);
    }

    #[rstest]
    #[case(0, 10, "0%")]
    #[case(1, 8, "12.5%")]
    #[case(1, 10_000, "<0.1%")]
    #[case(9_999, 10_000, ">99.9%")]
    #[case(10, 10, "100%")]
    #[case(0, 0, "–")]
    fn share_is_0_or_100_only_if_exact(#[case] part: u64, #[case] whole: u64, #[case] text: &str) {
        assert_eq!(share(part, whole), text);
    }

    #[rstest]
    #[case(0.0, "0×")]
    #[case(0.004, "<0.01×")]
    #[case(0.85, "0.85×")]
    #[case(1.0, "1×")]
    #[case(2.504, "2.5×")]
    #[case(9.996, "10×")]
    #[case(12.54, "12.5×")]
    #[case(99.96, "100×")]
    #[case(1_234.4, "1,234×")]
    fn factor_has_three_digits(#[case] value: f64, #[case] text: &str) {
        assert_eq!(factor(value), text);
    }

    #[rstest]
    #[case::decline(4_200, 3_983, "down 217 (-5.2%)")]
    #[case::growth(10, 1_010, "up 1,000 (+10,000%)")]
    #[case::from_zero(0, 4, "up 4")]
    #[case::none(4, 4, "unchanged")]
    #[case::sizes(u64::MAX, 0, "down 18,446,744,073,709,551,615 (-100.0%)")]
    fn change_has_direction_difference_and_percentage(#[case] before: u64, #[case] after: u64, #[case] text: &str) {
        assert_eq!(change(before.into(), after.into()), text);
    }

    #[test]
    fn times_are_in_utc() {
        let at = Timestamp::from_rfc3339("2026-11-05T23:04:09+01:00").unwrap();
        assert_eq!((day(at), hour(at), second(at)), ("5 Nov".into(), "22:04".into(), "22:04:09".into()));
        assert_eq!((minute(at), date(at)), ("5 Nov 22:04".into(), "5 Nov 2026".into()));
        assert_eq!(month(at), "Nov 2026");
        assert_eq!(machine(at), "2026-11-05T22:04:09.000Z");
    }

    #[rstest]
    #[case(1_209_600, "last 14 days")]
    #[case(86_400, "last 24 hours")]
    #[case(3_600, "last hour")]
    #[case(60, "last minute")]
    #[case(7_200, "last 2 hours")]
    fn last_omits_one(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(last(Duration::from_secs(seconds)), text);
    }

    #[rstest]
    #[case(1_209_600, "14 days")]
    #[case(3_600, "1 hour")]
    #[case(5_400, "90 minutes")]
    #[case(61, "61 seconds")]
    fn span_uses_the_largest_unit(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}
