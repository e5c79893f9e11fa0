//! Axis ticks at round numbers and at round times in UTC.

use chrono::{DateTime, Datelike as _, Months, Utc};

use crate::domain::Timestamp;
use crate::http::format;

/// Tick of an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Position on the axis, from 0 to 1.
    pub at: f64,
    pub label: String,
}

/// Axis of counts, from zero to a round number.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// The number at its end, at least the largest count.
    pub end: f64,
    pub ticks: Vec<Tick>,
}

impl Counts {
    /// Returns an axis for counts up to `largest` with three to six steps, or fewer for fewer than three users. Of all
    /// such axes it has the lowest end, and of those the fewest steps. So the largest count is above three quarters of
    /// it.
    pub fn up_to(largest: u64) -> Self {
        let largest = (largest as f64).max(1.0);
        let power = 10_f64.powf((largest / 3.0).log10().floor());
        let steps = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
        // Counts are integers.
        let steps = steps.into_iter().filter(|step| *step >= 1.0 && (*step >= 10.0 || step.fract() == 0.0));
        // The tolerance is for sizes beyond the precision of a float.
        let axes = steps.map(|step| (step, (largest / step - 1e-9).ceil()));
        let axes = axes.filter(|(_, parts)| (largest.min(3.0)..=6.0).contains(parts));
        let lowest = axes.min_by(|(step, parts), (other, others)| {
            (step * parts).total_cmp(&(other * others)).then(parts.total_cmp(others))
        });
        let (step, parts) = lowest.expect("a step of 10 powers fits a number of 3 to 30 powers");
        let tick = |part: usize| Tick { at: part as f64 / parts, label: format::short(part as f64 * step) };
        Self { end: parts * step, ticks: (0..=parts as usize).map(tick).collect() }
    }

    /// Returns the position of `count`, from 0 to 1.
    pub fn position(&self, count: u64) -> f64 {
        count as f64 / self.end
    }
}

/// Steps of a time axis in milliseconds: divisors of a day, then multiples of a day.
const STEPS: [i64; 15] = [
    1_000,
    10_000,
    60_000,
    300_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
];
const DAY: i64 = 86_400_000;

/// Returns at most `max` ticks at round times between `from` and `to`.
pub fn times(from: Timestamp, to: Timestamp, max: usize) -> Vec<Tick> {
    let (from, to) = (from.as_millis(), to.as_millis());
    let length = to - from;
    if length <= 0 || max == 0 {
        return Vec::new();
    }
    let position = |at: i64| (at - from) as f64 / length as f64;
    let Some(step) = STEPS.into_iter().find(|step| length / step < max as i64) else {
        return months(from, to, max).map(|at| Tick { at: position(at), label: format::month(millis(at)) }).collect();
    };
    let first = from.div_euclid(step) * step + if from.rem_euclid(step) == 0 { 0 } else { step };
    let all = (0..).map(|count| first + count * step).take_while(|at| *at <= to);
    let label = |at: i64| match step {
        step if step >= DAY || at.rem_euclid(DAY) == 0 => format::day(millis(at)),
        step if step >= 60_000 => format::hour(millis(at)),
        _ => format::second(millis(at)),
    };
    all.map(|at| Tick { at: position(at), label: label(at) }).collect()
}

/// Returns the first day of every month, or of every second, third, sixth or twelfth one.
fn months(from: i64, to: i64, max: usize) -> impl Iterator<Item = i64> {
    let length = (to - from) / (30 * DAY);
    let every = [1, 2, 3, 6].into_iter().find(|every| length / (*every as i64) < max as i64).unwrap_or(12_u32);
    let begin = DateTime::<Utc>::from_timestamp_millis(from).unwrap_or_default();
    let year = begin.with_day(1).and_then(|day| day.with_month(1)).unwrap_or(begin).date_naive();
    let all = (0..).map_while(move |count: u32| year.checked_add_months(Months::new(count * every)));
    let all = all.map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis());
    all.skip_while(move |at| *at < from).take_while(move |at| *at <= to).take(100)
}

fn millis(at: i64) -> Timestamp {
    Timestamp::from_millis(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    fn between(from: &str, to: &str, max: usize) -> Vec<Tick> {
        times(Timestamp::from_rfc3339(from).unwrap(), Timestamp::from_rfc3339(to).unwrap(), max)
    }

    #[rstest]
    #[case::nothing(0, &["0", "1"])]
    #[case::one(1, &["0", "1"])]
    #[case::few(3, &["0", "1", "2", "3"])]
    #[case::seven(7, &["0", "2", "4", "6", "8"])]
    #[case::nine(9, &["0", "2", "4", "6", "8", "10"])]
    #[case::no_halves(10, &["0", "2", "4", "6", "8", "10"])]
    #[case::eleven(11, &["0", "2", "4", "6", "8", "10", "12"])]
    #[case::hundreds(842, &["0", "250", "500", "750", "1k"])]
    #[case::lowest_end(4_256, &["0", "1k", "2k", "3k", "4k", "5k"])]
    #[case::round(20_000, &["0", "5k", "10k", "15k", "20k"])]
    #[case::millions(1_234_567, &["0", "250k", "500k", "750k", "1M", "1.25M"])]
    fn up_to_has_round_ticks(#[case] largest: u64, #[case] expected: &[&str]) {
        assert_eq!(labels(&Counts::up_to(largest).ticks), expected);
    }

    #[test]
    fn times_puts_days_at_midnight_utc() {
        let ticks = between("2026-11-08T10:00:00Z", "2026-11-22T10:00:00Z", 8);
        let days = ["9 Nov", "11 Nov", "13 Nov", "15 Nov", "17 Nov", "19 Nov", "21 Nov"];
        assert_eq!(labels(&ticks), days);
        let first = 14.0 / (14.0 * 24.0);
        assert!((ticks[0].at - first).abs() < 1e-9, "{ticks:?}");
    }

    #[test]
    fn times_of_a_day_are_hours_with_the_date_at_midnight() {
        let ticks = between("2026-11-21T10:00:00Z", "2026-11-22T10:00:00Z", 9);
        let hours = ["12:00", "15:00", "18:00", "21:00", "22 Nov", "03:00", "06:00", "09:00"];
        assert_eq!(labels(&ticks), hours);
    }

    #[test]
    fn times_of_a_year_are_months() {
        let ticks = between("2025-10-20T00:00:00Z", "2026-11-22T10:00:00Z", 8);
        let months = ["Nov 2025", "Jan 2026", "Mar 2026", "May 2026", "Jul 2026", "Sep 2026", "Nov 2026"];
        assert_eq!(labels(&ticks), months);
    }

    proptest! {
        #[test]
        fn up_to_covers_the_largest_count_with_few_ticks(bits in 0_u32..64, number: u64) {
            let largest = (number >> bits).max(1);
            let axis = Counts::up_to(largest);
            prop_assert!((0.749_999..=1.000_001).contains(&axis.position(largest)), "{:?}", axis);
            let ticks = if largest < 3 { 2..=3 } else { 4..=7 };
            prop_assert!(ticks.contains(&axis.ticks.len()), "{:?}", axis);
            prop_assert!(axis.end.fract() == 0.0 && axis.end % (axis.ticks.len() - 1) as f64 == 0.0, "{:?}", axis);
        }

        #[test]
        fn times_are_few_and_within_the_axis(from in 0_i64..4_000_000_000_000, length in 1_i64..100_000_000_000) {
            let ticks = times(millis(from), millis(from + length), 8);
            prop_assert!(ticks.len() <= 9, "{:?}", ticks);
            prop_assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.at)));
        }
    }
}
