//! The section of a segment's page that shows its past counts.

use std::time::Duration;

use maud::{Markup, html};

use super::links::{SegmentLink, segment_call};
use super::ranges::{self, RANGES};
use super::{chart, estimate};
use crate::domain::{Estimate, Timestamp, Window};
use crate::estimator::history::Point;
use crate::http::charts::history::PastCounts;
use crate::http::format;

/// Past counts of a segment.
pub struct History {
    /// The number of days that the caller chose.
    pub days: u64,
    /// The start of the chart.
    pub from: Timestamp,
    /// All samples since a week before that, the oldest first. `None` if the history's key in Redis belongs to another
    /// program.
    pub points: Option<Vec<Point>>,
    /// Distance of the points in the chart.
    pub step: Duration,
    /// Sampling interval. `None` if this service does not sample.
    pub interval: Option<Duration>,
    /// The time of the first sample, if known.
    pub first_sampled_at: Option<Timestamp>,
    /// The count of this moment over the longest window.
    pub live: Estimate,
    /// The count at the moment that the caller chose.
    pub moment: Option<Moment>,
}

impl History {
    /// Returns all counts that the section shows.
    pub fn counts(&self) -> impl Iterator<Item = Estimate> {
        let samples = self.points.iter().flatten().filter_map(|point| point.count);
        let of_moment = self.moment.iter().flat_map(|moment| moment.counts.iter().copied());
        samples.chain(of_moment).chain([self.live])
    }
}

/// The count at a moment.
pub struct Moment {
    pub at: Timestamp,
    /// The last sample at that time, in words.
    pub reading: String,
    /// The counts that it names.
    pub counts: Vec<Estimate>,
}

/// Renders `history` until `now` as a chart and a table. `link` leads to the same page.
pub fn history(history: &History, link: SegmentLink<'_>, configured: Window, now: Timestamp) -> Markup {
    let History { from, ref points, step, interval, first_sampled_at, live, .. } = *history;
    let moment = history.moment.as_ref();
    let past = points.as_ref().map(|points| PastCounts { points, from, to: now, step, live: Some(live) });
    html! {
        section aria-labelledby="over-time" {
            div .head {
                h2 #over-time { "Size over time" }
                p .note {
                    "The count over the " (format::last(configured.duration()))
                    @if link.window.is_some() { ", whichever window is chosen above" }
                    @if let Some(interval) = interval { ", sampled every " (format::every(interval)) }
                    ". The hollow point is the count now. Gaps mean no data was recorded."
                }
                (range_links(history, link, now))
            }
            div .body {
                @match past {
                    None => { p .nothing #no-history { "The history’s key in Redis holds something else: another program writes to this Redis." } }
                    Some(past) => {
                        @if past.has_samples() { (line(&past, live, link.name)) }
                        @else if first_sampled_at.is_some_and(|first| first < from) {
                            p .nothing #no-history { "No data in this range." }
                        } @else {
                            p .nothing #no-history {
                                "No history yet. "
                                @if let Some(interval) = interval { "The next point is recorded " (next(interval)) "." }
                                @else { "History is turned off (" code { "history_interval" } ")." }
                            }
                        }
                        // Samples before the range answer it, too.
                        @if past.has_samples() || first_sampled_at.is_some() || moment.is_some() {
                            (moment_form(moment, link))
                        }
                    }
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

/// Renders links to the ranges that have samples, and since when there are any.
fn range_links(history: &History, link: SegmentLink<'_>, now: Timestamp) -> Markup {
    let offered = ranges::offered(history.first_sampled_at, now);
    let chosen = history.days.min(offered[offered.len() - 1].0);
    html! {
        nav .choice aria-label="Time shown" {
            span aria-hidden="true" { "Range" }
            ul .choices {
                @for (days, text) in offered {
                    li { a href=(link.with_days(*days).href()) aria-current=[(*days == chosen).then_some("true")] { (text) } }
                }
                @for (_, text) in &RANGES[offered.len()..] {
                    li { a role="link" aria-disabled="true" { (text) } }
                }
            }
            @if let Some(first) = history.first_sampled_at.filter(|_| offered.len() < RANGES.len()) {
                span #recorded { "Recorded since " time datetime=(format::machine(first)) { (format::date(first)) } }
            }
        }
    }
}

/// Renders the form for the count at a moment, with the count if one is chosen.
fn moment_form(moment: Option<&Moment>, link: SegmentLink<'_>) -> Markup {
    let value =
        moment.map(|moment| format::query_time(moment.at).trim_end_matches(":00Z").trim_end_matches('Z').to_owned());
    html! {
        form .moment method="get" action="segment#over-time" {
            @for (name, value) in link.parameters() { input type="hidden" name=(name) value=(value); }
            label for="at" { "Count at, in UTC" }
            input #at type="datetime-local" name="at" value=[value] required;
            button { "Show" }
        }
        @if let Some(Moment { reading, .. }) = moment { p .reading #moment { (reading) } }
    }
}

fn line(past: &PastCounts<'_>, live: Estimate, name: &str) -> Markup {
    let points = past.shown();
    html! {
        (chart::figure("history", &past.chart(), &call(past, name, "history.svg", ""), &call(past, name, "history", "csv")))
        details #history-figures {
            summary { "Show as table" }
            @if points.len() > 48 { (table_by_day(points, live)) } @else { (table_by_point(points, live)) }
        }
    }
}

/// Returns a call of the API for `past` until its last sample, so that its answer stays the same.
fn call(past: &PastCounts<'_>, name: &str, resource: &str, format: &str) -> String {
    let last = past.shown().iter().rev().find_map(|point| point.sampled_at).unwrap_or(past.to);
    let [from, to] = [past.from, last].map(format::query_time);
    let step = Window::new(past.step).map(|step| step.to_string()).unwrap_or_default();
    segment_call(name, resource, [("from", from.as_str()), ("to", &to), ("step", &step), ("format", format)])
}

/// Renders the count of this moment and every point, the newest first.
fn table_by_point(points: &[Point], live: Estimate) -> Markup {
    html! {
        table #history-table {
            caption { "Users over time, in UTC" }
            thead { tr { th scope="col" { "Time" } th .number scope="col" { "Users" } } }
            tbody {
                tr { th scope="row" { "Now" } td .number { (estimate::users(live)) } }
                @for point in points.iter().rev() {
                    tr { th scope="row" { (format::marked(point.at)) } td .number { (count(point.count)) } }
                }
            }
        }
    }
}

/// Renders the count of this moment and a row per day, the newest first.
fn table_by_day(points: &[Point], live: Estimate) -> Markup {
    let days = points.chunk_by(|one, next| format::date(one.at) == format::date(next.at));
    let days: Vec<_> = days.collect();
    html! {
        table #history-table {
            caption { "Users by day, in UTC" }
            thead { tr { th scope="col" { "Day" } th .number scope="col" { "Lowest" } th .number scope="col" { "Highest" } th .number scope="col" { "Last" } } }
            tbody {
                tr { th scope="row" { "Now" } td .number colspan="3" { (estimate::users(live)) } }
                @for day in days.iter().rev() {
                    @let counts = || day.iter().filter_map(|point| point.count);
                    @let by_count = |count: &Estimate| count.count();
                    tr {
                        th scope="row" { (format::date(day[0].at)) }
                        td .number { (count(counts().min_by_key(by_count))) }
                        td .number { (count(counts().max_by_key(by_count))) }
                        td .number { (count(counts().next_back())) }
                    }
                }
            }
        }
    }
}

fn count(count: Option<Estimate>) -> Markup {
    count.map_or_else(|| html! { "no data" }, estimate::users)
}
