//! The section of a segment's page that shows its past counts.

use std::time::Duration;

use maud::{Markup, html};

use super::links::SegmentLink;
use super::ranges::{self, RANGES};
use crate::domain::{Timestamp, Window};
use crate::estimator::history::Point;
use crate::http::charts::axis;
use crate::http::charts::plot::{self, DataPoint, Frame};
use crate::http::format;

/// Past counts of a segment.
pub struct History {
    /// Number of days shown.
    pub days: u64,
    /// All samples, the oldest first. `None` if the history's key in Redis belongs to another program.
    pub points: Option<Vec<Point>>,
    /// Distance of the points in the chart.
    pub step: Duration,
    /// Sampling interval. `None` if this service does not sample.
    pub interval: Option<Duration>,
    /// Whether there are samples before the range.
    pub has_older: bool,
}

/// Renders `history` until `now` as a chart and a table. `link` leads to the same page.
pub fn history(history: &History, configured: Window, now: Timestamp, link: SegmentLink<'_>) -> Markup {
    let History { days, points, interval, .. } = history;
    html! {
        p .note {
            "The count over the " (format::last(configured.duration()))
            @if let Some(interval) = interval { ", sampled every " (every(*interval)) }
            ". Gaps mean no data was recorded."
        }
        nav .choice aria-label="Time shown" {
            span aria-hidden="true" { "Range" }
            ul .choices {
                @for (range, text) in RANGES {
                    li { a href=(link.with_days(range).href()) aria-current=[(range == *days).then_some("true")] { (text) } }
                }
            }
        }
        @match points {
            None => { p .nothing #no-history { "The history’s key in Redis holds something else: another program writes to this Redis." } }
            Some(points) if points.iter().any(|point| point.count.is_some()) => { (line(history, points, now)) }
            Some(_) if history.has_older => { p .nothing #no-history { "No data in this range." } }
            Some(_) => {
                p .nothing #no-history {
                    "No history yet. "
                    @if let Some(interval) = interval { "The next point is recorded " (next(*interval)) "." }
                    @else { "History is turned off (" code { "history_interval" } ")." }
                }
            }
        }
    }
}

/// Formats when the next sample of `interval` is due.
fn next(interval: Duration) -> String {
    if interval.as_secs() == 3_600 {
        "at the next full hour".to_owned()
    } else {
        format!("within {}", format::span(interval))
    }
}

/// Formats an interval to follow “every”: `hour`, `2 hours`.
fn every(interval: Duration) -> String {
    let (unit, singular, _) = format::unit_of(interval);
    if interval.as_secs() == unit { singular.to_owned() } else { format::span(interval) }
}

fn line(History { days, step, .. }: &History, points: &[Point], now: Timestamp) -> Markup {
    let (from, to) = (now - ranges::duration(*days), now);
    let length = (to.as_millis() - from.as_millis()) as f64;
    let utc = |at: Timestamp| format!("{} UTC", format::minute(at));
    let data_point = |&Point { at, count, .. }: &Point| DataPoint {
        count,
        at: ((at.as_millis() - from.as_millis()) as f64 / length).clamp(0.0, 1.0),
        title: match count {
            Some(count) => format!("{}: {}", utc(at), format::counted(count, "user", "users")),
            None => format!("{}: no data", utc(at)),
        },
    };
    let data_points: Vec<_> = downsample(points, *step).iter().map(data_point).collect();
    let counts = || points.iter().filter_map(|point| point.count);
    let frame = Frame {
        id: "history",
        label: format!(
            "Line chart over {}: between {} and {}. The table below has the numbers.",
            format::counted(*days, "day", "days"),
            format::number(counts().min().unwrap_or_default()),
            format::counted(counts().max().unwrap_or_default(), "user", "users"),
        ),
        x_label: "Time, UTC",
        x_ticks: axis::times(from, to, 8),
    };
    html! {
        (plot::line(&frame, &data_points))
        details #history-figures {
            summary { "Show as table" }
            @if points.len() > 48 { (table_by_day(points)) } @else { (table_by_point(points)) }
        }
    }
}

/// Returns the last sample of each step, or a point without a count if there is none.
fn downsample(points: &[Point], step: Duration) -> Vec<Point> {
    let step_of = |point: &Point| point.at.as_millis().div_euclid(step.as_millis().max(1) as i64);
    let steps = points.chunk_by(|one, next| step_of(one) == step_of(next));
    steps.filter_map(|step| step.iter().rev().find(|point| point.count.is_some()).or(step.first()).copied()).collect()
}

/// Renders every point, the newest first.
fn table_by_point(points: &[Point]) -> Markup {
    html! {
        table #history-table {
            caption { "Users over time, in UTC" }
            thead { tr { th scope="col" { "Time" } th .number scope="col" { "Users" } } }
            tbody {
                @for point in points.iter().rev() {
                    tr { th scope="row" { (format::marked(point.at)) } td .number { (count(point.count)) } }
                }
            }
        }
    }
}

/// Renders a row per day, the newest first.
fn table_by_day(points: &[Point]) -> Markup {
    let days = points.chunk_by(|one, next| format::date(one.at) == format::date(next.at));
    let days: Vec<_> = days.collect();
    html! {
        table #history-table {
            caption { "Users by day, in UTC" }
            thead { tr { th scope="col" { "Day" } th .number scope="col" { "Lowest" } th .number scope="col" { "Highest" } th .number scope="col" { "Last" } } }
            tbody {
                @for day in days.iter().rev() {
                    @let counts = || day.iter().filter_map(|point| point.count);
                    tr {
                        th scope="row" { (format::date(day[0].at)) }
                        td .number { (count(counts().min())) }
                        td .number { (count(counts().max())) }
                        td .number { (count(counts().next_back())) }
                    }
                }
            }
        }
    }
}

fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "no data".to_owned(), format::number)
}
