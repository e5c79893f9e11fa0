//! The part of a segment's page that shows how many were in it over time.

use std::time::Duration;

use maud::{Markup, html};

use super::chart::{self, DataPoint, Surroundings};
use super::segment::{Segment, link};
use super::{axis, format};
use crate::domain::Timestamp;

/// The sizes of a segment over time.
pub struct Past {
    /// How many days the page goes back.
    pub days: u64,
    /// Whether the history's key holds a history.
    pub is_readable: bool,
    /// From the oldest, all samples that there are.
    pub points: Vec<(Timestamp, Option<u64>)>,
    /// How far those are apart that are drawn.
    pub step: Duration,
    /// How often the count is sampled; `None` if it isn't.
    pub interval: Option<Duration>,
}

/// How far back a page can go, in days, and how that is called.
pub const RANGES: [(u64, &str); 5] =
    [(1, "1 day"), (7, "7 days"), (USUAL_DAYS, USUAL_SPAN), (90, "3 months"), (395, "13 months")];
/// How far back it goes unless somebody asks.
pub const USUAL_DAYS: u64 = 14;
/// How that is called.
pub const USUAL_SPAN: &str = "14 days";

/// The sizes of a segment as a line, and as a table.
pub fn past(segment: &Segment<'_>) -> Markup {
    let Past { days, points, interval, is_readable, .. } = &segment.past;
    html! {
        p .note {
            "The count over the last " (format::span(segment.longest.duration()))
            @if let Some(interval) = interval { ", sampled every " (every(*interval)) }
            ". Where nothing was sampled, the line has a gap."
        }
        nav .choice aria-label="Time shown" {
            span aria-hidden="true" { "Show" }
            ul .choices {
                @for (range, text) in RANGES {
                    li { a href=(link(segment, segment.window, range)) aria-current=[(range == *days).then_some("true")] { (text) } }
                }
            }
        }
        @if !is_readable {
            p .nothing #no-history { "The history’s key in Redis holds something else: another program writes to this Redis." }
        } @else if points.iter().any(|(_, count)| count.is_some()) { (curve(segment)) }
        @else {
            p .nothing #no-history {
                "There are no samples of this time. "
                @if let Some(interval) = interval { "The next one is due within " (format::span(*interval)) "." }
                @else { "This service takes none: its setting " code { "history_interval" } " is off." }
            }
        }
    }
}

/// `hour`, `2 hours`: what follows “every”.
fn every(interval: Duration) -> String {
    let (unit, one, _) = format::unit_of(interval);
    if interval.as_secs() == unit { one.to_owned() } else { format::span(interval) }
}

fn curve(segment: &Segment<'_>) -> Markup {
    let Past { days, points, step, .. } = &segment.past;
    let (from, to) = (segment.now - Duration::from_secs(days * 86_400), segment.now);
    let length = (to.as_millis() - from.as_millis()) as f64;
    let of = |at: Timestamp| format!("{} UTC", format::minute(at));
    let mark = |(at, count): &(Timestamp, Option<u64>)| DataPoint {
        count: *count,
        at: ((at.as_millis() - from.as_millis()) as f64 / length).clamp(0.0, 1.0),
        title: match count {
            Some(count) => format!("{}: {}", of(*at), format::counted(*count, "user", "users")),
            None => format!("{}: no sample", of(*at)),
        },
    };
    let marks: Vec<_> = thinned(points, *step).iter().map(mark).collect();
    let known = || points.iter().filter_map(|(_, count)| *count);
    let surroundings = Surroundings {
        id: "history",
        label: format!(
            "Line chart over {}: between {} and {}. The table below has the figures.",
            format::counted(*days, "day", "days"),
            format::number(known().min().unwrap_or_default()),
            format::counted(known().max().unwrap_or_default(), "user", "users"),
        ),
        across: "Time, UTC",
        ticks: axis::times(from, to, 8),
    };
    html! {
        (chart::line(&surroundings, &marks))
        details #history-figures {
            summary { "These figures as a table" }
            @if points.len() > 48 { (by_day(points)) } @else { (by_point(points)) }
        }
    }
}

/// The last sample of each step, or where it begins if there is none.
fn thinned(points: &[(Timestamp, Option<u64>)], step: Duration) -> Vec<(Timestamp, Option<u64>)> {
    let step_of = |(at, _): &(Timestamp, Option<u64>)| at.as_millis().div_euclid(step.as_millis().max(1) as i64);
    let steps = points.chunk_by(|one, next| step_of(one) == step_of(next));
    steps.filter_map(|step| step.iter().rev().find(|(_, count)| count.is_some()).or(step.first()).copied()).collect()
}

/// Every point, newest first.
fn by_point(points: &[(Timestamp, Option<u64>)]) -> Markup {
    html! {
        table #history-table {
            caption { "Users over time, in UTC" }
            thead { tr { th scope="col" { "Time" } th .number scope="col" { "Users" } } }
            tbody {
                @for (at, count) in points.iter().rev() {
                    tr { th scope="row" { (format::marked(*at)) } td .number { (or_none(*count)) } }
                }
            }
        }
    }
}

/// A line for each day, newest first: there are too many points to be read.
fn by_day(points: &[(Timestamp, Option<u64>)]) -> Markup {
    let days = points.chunk_by(|(one, _), (next, _)| format::date(*one) == format::date(*next));
    let days: Vec<_> = days.collect();
    html! {
        table #history-table {
            caption { "Users by day, in UTC" }
            thead { tr { th scope="col" { "Day" } th .number scope="col" { "Lowest" } th .number scope="col" { "Highest" } th .number scope="col" { "Last" } } }
            tbody {
                @for day in days.iter().rev() {
                    @let known = || day.iter().filter_map(|(_, count)| *count);
                    tr {
                        th scope="row" { (format::date(day[0].0)) }
                        td .number { (or_none(known().min())) }
                        td .number { (or_none(known().max())) }
                        td .number { (or_none(known().next_back())) }
                    }
                }
            }
        }
    }
}

fn or_none(count: Option<u64>) -> String {
    count.map_or_else(|| "no sample".to_owned(), format::number)
}
