//! The chart of when a segment's users were last seen.

use std::time::Duration;

use super::axis::Tick;
use super::{Bar, Chart, Marks};
use crate::domain::{Timestamp, Window};
use crate::estimator::{Bucket, Histogram};
use crate::http::format;

/// Returns the chart of the histogram of `window`. Users expire by the `configured` window, whichever is shown.
pub fn chart(histogram: &Histogram, window: Window, configured: Window) -> Chart {
    let range = |from: Timestamp, to: Timestamp| format!("{} to {}", format::minute(from), format::minute(to));
    let lifetime = configured.duration();
    let bar = |bucket: &Bucket| Bar {
        count: bucket.count.count(),
        reading: format!(
            "Last seen {} UTC: {} ({}). They drop out {} unless they return.",
            range(bucket.from, bucket.to),
            format::counted_users(bucket.count),
            format::share_of(bucket.count, histogram.count),
            range(bucket.from + lifetime, bucket.to + lifetime),
        ),
    };
    let (x_ticks, unit) = ages(window, histogram.buckets.len());
    let users = format::counted_users(histogram.count);
    Chart {
        label: format!("Bar chart: {users} by when they were last seen."),
        x_label: format!("Last seen, {unit} ago"),
        x_ticks,
        marks: Marks::Bars(histogram.buckets.iter().map(bar).collect()),
    }
}

/// Returns a number of buckets for `window` so that each is a whole number of days, or hours and so on, if possible.
pub fn buckets(window: Window) -> usize {
    const COUNTS: [u64; 8] = [14, 12, 15, 10, 16, 8, 7, 6];
    const FEW: [u64; 4] = [5, 4, 3, 2];
    const UNITS: [u64; 4] = [86_400, 3_600, 60, 1];
    let of = |counts: &[u64]| {
        let fits = |unit: u64| counts.iter().find(|count| window.as_secs().is_multiple_of(*count * unit)).copied();
        UNITS.into_iter().find_map(fits)
    };
    let count = of(&COUNTS).or_else(|| of(&FEW)).unwrap_or(COUNTS[0]);
    usize::try_from(count).unwrap_or(1)
}

/// Returns the unit of the ages of `buckets` in `window`.
pub fn unit(window: Window, buckets: usize) -> &'static str {
    ages(window, buckets).1
}

/// Returns ticks at the bounds of the buckets with their ages, and the unit of the ages.
fn ages(window: Window, buckets: usize) -> (Vec<Tick>, &'static str) {
    let count = buckets.max(1) as u64;
    let length = Duration::from_secs(window.as_secs() / count);
    let is_whole = window.as_secs().is_multiple_of(count);
    let (unit, _, plural) = format::unit_of(if is_whole { length } else { window.duration() });
    let label = |left: u64| match left {
        0 => "now".to_owned(),
        left => format::number(left * window.as_secs() / count / unit),
    };
    let bounds = (0..=count).filter(|index| is_whole || *index == 0 || *index == count);
    (bounds.map(|index| Tick { at: index as f64 / count as f64, label: label(count - index) }).collect(), plural)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("14d", 14)]
    #[case("7d", 7)]
    #[case("24h", 12)]
    #[case("30d", 15)]
    #[case("36h", 12)]
    #[case("4m", 12)]
    #[case("4s", 4)]
    #[case("1s", 14)]
    fn buckets_have_a_whole_length_if_possible(#[case] window: &str, #[case] expected: usize) {
        assert_eq!(buckets(Window::parse(window).unwrap()), expected);
    }

    #[rstest]
    #[case("14d", 14, 15, "14", "days")]
    #[case("24h", 12, 13, "24", "hours")]
    #[case("1s", 14, 2, "1", "seconds")]
    fn ages_are_in_their_unit(
        #[case] window: &str,
        #[case] buckets: usize,
        #[case] count: usize,
        #[case] first: &str,
        #[case] unit: &str,
    ) {
        let (ticks, found) = ages(Window::parse(window).unwrap(), buckets);
        assert_eq!((ticks.len(), ticks[0].label.as_str(), found), (count, first, unit));
        assert_eq!(ticks[count - 1], Tick { at: 1.0, label: "now".to_owned() });
    }
}
