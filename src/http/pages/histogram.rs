//! The part of a segment's page that shows when its members were last seen, and so when they leave.

use std::time::Duration;

use maud::{Markup, html};

use super::axis::Tick;
use super::chart::{self, Bar, Surroundings};
use super::format;
use super::segment::Segment;
use crate::domain::{Timestamp, Window};

/// Members that were last seen after `from`, and at or before `to`.
pub struct Seen {
    /// The begin.
    pub from: Timestamp,
    /// The end.
    pub to: Timestamp,
    /// How many they are.
    pub count: u64,
}

/// The members of a segment as bars, and as a table.
pub fn histogram(segment: &Segment<'_>) -> Markup {
    // Whichever window is looked at: they stay for the one that is configured.
    let window = segment.longest.duration();
    let between = |from: Timestamp, to: Timestamp| format!("{} to {}", format::minute(from), format::minute(to));
    let bar = |seen: &Seen| Bar {
        count: seen.count,
        title: format!(
            "Last seen {} UTC: {}. They leave {}, unless they come back.",
            between(seen.from, seen.to),
            format::counted(seen.count, "user", "users"),
            between(seen.from + window, seen.to + window),
        ),
    };
    let bars: Vec<_> = segment.last_seen.iter().map(bar).collect();
    let (ticks, unit) = ages(segment.window, bars.len());
    let surroundings = Surroundings {
        id: "histogram",
        label: format!(
            "Bar chart: {} by when they were last seen. The table below has the figures.",
            format::counted(segment.count, "user", "users")
        ),
        across: &format!("Last seen, {unit} ago"),
        ticks,
    };
    html! {
        (chart::bars(&surroundings, &bars))
        details #histogram-figures {
            summary { "These figures as a table" }
            table #histogram-table {
                caption { "Users by when they were last seen, in UTC" }
                thead { tr { th scope="col" { "Last seen after" } th scope="col" { "Leave after" } th .number scope="col" { "Users" } th .number scope="col" { "Share" } } }
                tbody {
                    @for seen in segment.last_seen.iter().rev() {
                        tr {
                            th scope="row" { (format::marked(seen.from)) }
                            td { (format::marked(seen.from + window)) }
                            td .number { (format::number(seen.count)) }
                            td .number { (format::share(seen.count, segment.count)) }
                        }
                    }
                }
            }
        }
    }
}

/// How many parts a window is shown in: each of them a whole number of days, or hours and so on, if that can be.
pub fn parts(window: Window) -> usize {
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

/// How long ago the bounds of a window's parts are, and in which unit.
fn ages(window: Window, parts: usize) -> (Vec<Tick>, &'static str) {
    let count = parts.max(1) as u64;
    let part = Duration::from_secs(window.as_secs() / count);
    let is_whole = window.as_secs().is_multiple_of(count);
    let (unit, _, several) = format::unit_of(if is_whole { part } else { window.duration() });
    let label = |left: u64| match left {
        0 => "now".to_owned(),
        left => format::number(left * window.as_secs() / count / unit),
    };
    let bounds = (0..=count).filter(|at| is_whole || *at == 0 || *at == count);
    (bounds.map(|at| Tick { at: at as f64 / count as f64, label: label(count - at) }).collect(), several)
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
    fn a_window_is_shown_in_parts_of_a_whole_length(#[case] window: &str, #[case] expected: usize) {
        assert_eq!(parts(Window::parse(window).unwrap()), expected);
    }

    #[rstest]
    #[case("14d", 14, 15, "14", "days")]
    #[case("24h", 12, 13, "24", "hours")]
    #[case("1s", 14, 2, "1", "seconds")]
    fn bounds_are_told_in_their_unit(
        #[case] window: &str,
        #[case] parts: usize,
        #[case] count: usize,
        #[case] first: &str,
        #[case] unit: &str,
    ) {
        let (ticks, found) = ages(Window::parse(window).unwrap(), parts);
        assert_eq!((ticks.len(), ticks[0].label.as_str(), found), (count, first, unit));
        assert_eq!(ticks[count - 1], Tick { at: 1.0, label: "now".to_owned() });
    }
}
