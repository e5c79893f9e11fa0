//! `/pages/segment`: how many are in a segment, when they were last seen, and how many there were.

use std::time::Duration;

use maud::{Markup, html};

use super::axis::{self, Tick};
use super::chart::{self, Bar, Mark, Surroundings};
use super::curl::Reached;
use super::frame::{self, Page, Refresh};
use super::links::{Place, encoded, with_query};
use super::words;
use crate::time::{Timestamp, Window};

/// What the page shows.
pub struct Segment<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many are in it.
    pub count: u64,
    /// The moment that is of.
    pub now: Timestamp,
    /// The window it is over.
    pub window: Window,
    /// The one that is configured.
    pub longest: Window,
    /// The members by when they were last seen, oldest first.
    pub last_seen: Vec<Seen>,
    /// How many there were.
    pub past: Past,
}

/// Members that were last seen after `from`, and at or before `to`.
pub struct Seen {
    /// The begin.
    pub from: Timestamp,
    /// The end.
    pub to: Timestamp,
    /// How many they are.
    pub count: u64,
}

/// The sizes of a segment over time.
pub struct Past {
    /// How many days the page goes back.
    pub days: u64,
    /// From the oldest.
    pub points: Vec<(Timestamp, Option<u64>)>,
    /// How far they are apart.
    pub step: Duration,
    /// How often the count is sampled; `None` if it isn't.
    pub interval: Option<Duration>,
}

/// How far back a page can go, in days, and how that is called.
pub const RANGES: [(u64, &str); 5] =
    [(1, "1 day"), (7, "7 days"), (USUAL_DAYS, "14 days"), (90, "3 months"), (395, "13 months")];
/// How far back it goes unless somebody asks.
pub const USUAL_DAYS: u64 = 14;

/// The page.
pub fn page(segment: &Segment<'_>, reached: &Reached) -> Markup {
    let Segment { name, window, .. } = segment;
    let main = html! {
        p .back { a href="../" { "← All segments" } }
        h1 { (name) }
        p .figure #count data-count=(segment.count) { (words::number(segment.count)) }
        p { @if segment.count == 1 { "user was" } @else { "users were" } " seen in the last " (words::span(window.duration())) }
        (frame::as_of(segment.now, None))
        (windows(segment))
        section aria-labelledby="last-seen" {
            h2 #last-seen { "When they were last seen" }
            p .note {
                "Each stays for " (words::span(window.duration())) " after the last visit: who is furthest left leaves first, unless they come back."
            }
            @if segment.count == 0 { p .nothing { "Nobody is in it now." } }
            @else { (histogram(segment)) }
        }
        section aria-labelledby="over-time" {
            h2 #over-time { "Over time" }
            (past(segment))
        }
        section aria-labelledby="calls" {
            h2 #calls { "Ask for these numbers" }
            pre tabindex="0" { code { (calls(name, segment.past.days, segment.now, reached)) } }
        }
    };
    frame::page(Place::Folder, Page::Segment, name, Refresh::Often, &main)
}

/// The shorter windows that can be looked at, too.
fn windows(segment: &Segment<'_>) -> Markup {
    let shorter = [7 * 86_400, 86_400, 3_600].map(|seconds| Window::new(Duration::from_secs(seconds)));
    let shorter = shorter.into_iter().flatten().filter(|window| *window < segment.longest);
    let choices: Vec<_> = [segment.longest].into_iter().chain(shorter).collect();
    html! {
        nav .choice aria-label="Window" {
            span aria-hidden="true" { "Window" }
            ul .choices {
                @for window in choices {
                    li { a href=(link(segment, window, segment.past.days)) aria-current=[(window == segment.window).then_some("true")] {
                        (words::span(window.duration()))
                    } }
                }
            }
        }
    }
}

fn link(segment: &Segment<'_>, window: Window, days: u64) -> String {
    let window = if window == segment.longest { String::new() } else { window.to_string() };
    let days = if days == USUAL_DAYS { String::new() } else { days.to_string() };
    with_query("segment", [("name", segment.name), ("window", &window), ("days", &days)])
}

fn histogram(segment: &Segment<'_>) -> Markup {
    let window = segment.window.duration();
    let between = |from: Timestamp, to: Timestamp| format!("{} to {}", words::minute(from), words::minute(to));
    let bar = |seen: &Seen| Bar {
        count: seen.count,
        title: format!(
            "Last seen {} UTC: {}. They leave {}, unless they come back.",
            between(seen.from, seen.to),
            words::counted(seen.count, "user", "users"),
            between(seen.from + window, seen.to + window),
        ),
    };
    let bars: Vec<_> = segment.last_seen.iter().map(bar).collect();
    let (ticks, unit) = ages(segment.window, bars.len());
    let surroundings = Surroundings {
        id: "histogram",
        label: format!(
            "Bar chart: {} by when they were last seen. The table below has the figures.",
            words::counted(segment.count, "user", "users")
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
                            th scope="row" { (time(seen.from)) }
                            td { (time(seen.from + window)) }
                            td .number { (words::number(seen.count)) }
                            td .number { (words::share(seen.count, segment.count)) }
                        }
                    }
                }
            }
        }
    }
}

fn time(at: Timestamp) -> Markup {
    html! { time datetime=(words::machine(at)) { (words::minute(at)) } }
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
    let (unit, _, several) = words::unit_of(if is_whole { part } else { window.duration() });
    let label = |left: u64| match left {
        0 => "now".to_owned(),
        left => words::number(left * window.as_secs() / count / unit),
    };
    let bounds = (0..=count).filter(|at| is_whole || *at == 0 || *at == count);
    (bounds.map(|at| Tick { at: at as f64 / count as f64, label: label(count - at) }).collect(), several)
}

fn past(segment: &Segment<'_>) -> Markup {
    let Past { days, points, interval, .. } = &segment.past;
    let Some(interval) = interval else {
        return html! { p .nothing #no-history { "This service doesn’t sample counts: the setting " code { "history_interval" } " is off." } };
    };
    html! {
        p .note {
            "The count over the last " (words::span(segment.longest.duration())) ", sampled every " (every(*interval))
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
        @if points.iter().any(|(_, count)| count.is_some()) { (curve(segment)) }
        @else { p .nothing #no-history { "There are no samples of this time yet. The next one is due within " (words::span(*interval)) "." } }
    }
}

/// `hour`, `2 hours`: what follows “every”.
fn every(interval: Duration) -> String {
    let (unit, one, _) = words::unit_of(interval);
    if interval.as_secs() == unit { one.to_owned() } else { words::span(interval) }
}

fn curve(segment: &Segment<'_>) -> Markup {
    let Past { days, points, step, interval } = &segment.past;
    let (from, to) = (segment.now - Duration::from_secs(days * 86_400), segment.now);
    let length = (to.as_millis() - from.as_millis()) as f64;
    let of = |at: Timestamp| match interval {
        Some(interval) if step > interval => format!("{} UTC and {} after", words::minute(at), words::span(*step)),
        _ => format!("{} UTC", words::minute(at)),
    };
    let mark = |(at, count): &(Timestamp, Option<u64>)| Mark {
        count: *count,
        at: ((at.as_millis() - from.as_millis()) as f64 / length).clamp(0.0, 1.0),
        title: match count {
            Some(count) => format!("{}: {}", of(*at), words::counted(*count, "user", "users")),
            None => format!("{}: no sample", of(*at)),
        },
    };
    let marks: Vec<_> = points.iter().map(mark).collect();
    let known = || points.iter().filter_map(|(_, count)| *count);
    let surroundings = Surroundings {
        id: "history",
        label: format!(
            "Line chart over {}: between {} and {}. The table below has the figures.",
            words::counted(*days, "day", "days"),
            words::number(known().min().unwrap_or_default()),
            words::counted(known().max().unwrap_or_default(), "user", "users"),
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

/// Every point, newest first.
fn by_point(points: &[(Timestamp, Option<u64>)]) -> Markup {
    html! {
        table #history-table {
            caption { "Users over time, in UTC" }
            thead { tr { th scope="col" { "Time" } th .number scope="col" { "Users" } } }
            tbody {
                @for (at, count) in points.iter().rev() {
                    tr { th scope="row" { (time(*at)) } td .number { (or_none(*count)) } }
                }
            }
        }
    }
}

/// A line for each day, newest first: there are too many points to be read.
fn by_day(points: &[(Timestamp, Option<u64>)]) -> Markup {
    let days = points.chunk_by(|(one, _), (next, _)| words::date(*one) == words::date(*next));
    let days: Vec<_> = days.collect();
    html! {
        table #history-table {
            caption { "Users by day, in UTC" }
            thead { tr { th scope="col" { "Day" } th .number scope="col" { "Lowest" } th .number scope="col" { "Highest" } th .number scope="col" { "Last" } } }
            tbody {
                @for day in days.iter().rev() {
                    @let known = || day.iter().filter_map(|(_, count)| *count);
                    tr {
                        th scope="row" { (words::date(day[0].0)) }
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
    count.map_or_else(|| "no sample".to_owned(), words::number)
}

/// The calls behind the page.
fn calls(name: &str, days: u64, now: Timestamp, reached: &Reached) -> String {
    let path = format!("/segments/{}", encoded(name));
    let from = now - Duration::from_secs(days * 86_400);
    let calls = [
        format!("{path}/count"),
        format!("{path}/histogram"),
        format!("{path}/history?from={}", from.as_millis() / 1_000),
    ];
    calls.map(|path| reached.get(&path)).join("\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: &str = "2026-11-22T10:30:00Z";

    fn segment(name: &str) -> Segment<'_> {
        let now = Timestamp::from_rfc3339(NOW).unwrap();
        let day = Duration::from_secs(86_400);
        let seen = |ago: u32| Seen { from: now - day * ago, to: now - day * (ago - 1), count: u64::from(ago) * 100 };
        let window = Window::parse("14d").unwrap();
        let hour = Duration::from_secs(3_600);
        let points = (0..24_u32).rev().map(|ago| (now - hour * ago, (ago != 5).then_some(u64::from(ago) * 1_000)));
        Segment {
            name,
            count: 10_500,
            now,
            window,
            longest: window,
            last_seen: (1..=14).rev().map(seen).collect(),
            past: Past { days: 1, points: points.collect(), step: hour, interval: Some(hour) },
        }
    }

    fn html(segment: &Segment<'_>) -> String {
        page(segment, &Reached::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn the_page_has_the_count_and_says_of_when_it_is() {
        let page = html(&segment("sports"));
        assert!(page.contains("data-count=\"10500\">10,500</p>"), "{page}");
        assert!(page.contains("datetime=\"2026-11-22T10:30:00.000Z\""), "{page}");
    }

    #[test]
    fn a_bar_says_who_it_is_and_when_they_leave_and_the_table_has_its_figures() {
        let page = html(&segment("sports"));
        let title = "Last seen 8 Nov 10:30 to 9 Nov 10:30 UTC: 1,400 users. They leave 22 Nov 10:30 to 23 Nov 10:30, unless they \
                     come back.";
        assert!(page.contains(&format!("<title>{title}</title>")), "{page}");
        assert_eq!(page.matches("<g class=\"bar\">").count(), 14);
        assert!(page.contains("<td class=\"number\">1,400</td><td class=\"number\">13.3%</td>"), "{page}");
        assert!(
            page.contains("Last seen, days ago") && page.contains(">14</text>") && page.contains(">now</text>"),
            "{page}"
        );
    }

    #[test]
    fn a_missing_sample_is_said_to_be_missing() {
        let page = html(&segment("sports"));
        assert!(page.contains("<title>22 Nov 05:30 UTC: no sample</title>"), "{page}");
        assert!(page.contains("<td class=\"number\">no sample</td>"), "{page}");
        assert_eq!(page.matches("class=\"gap\"").count(), 1);
        assert!(page.contains("<title>21 Nov 11:30 UTC: 23,000 users</title>"), "{page}");
    }

    #[test]
    fn many_points_are_told_by_day() {
        let mut long = segment("sports");
        let hour = Duration::from_secs(3_600);
        long.past.days = 7;
        long.past.points = (0..168_u32).rev().map(|ago| (long.now - hour * ago, Some(u64::from(ago)))).collect();
        let page = html(&long);
        let cells = ["11", "34", "11"].map(|count| format!("<td class=\"number\">{count}</td>")).concat();
        assert!(page.contains(&format!("21 Nov 2026</th>{cells}")), "{page}");
    }

    #[test]
    fn no_history_is_not_a_chart_of_zeros() {
        let mut new = segment("sports");
        new.past.points = vec![(new.now, None)];
        let page = html(&new);
        assert!(page.contains("no samples of this time yet") && !page.contains("id=\"history\""), "{page}");
        new.past.interval = None;
        assert!(html(&new).contains("history_interval"));
    }

    #[test]
    fn a_hostile_name_is_text_and_its_links_lead_to_it() {
        let page = html(&segment("</title><script>\"' a/b"));
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(page.contains("/segments/%3C%2Ftitle%3E%3Cscript%3E%22%27%20a%2Fb/count"), "{page}");
        assert!(
            page.contains("href=\"segment?name=%3C%2Ftitle%3E%3Cscript%3E%22%27%20a%2Fb&amp;window=7d&amp;days=1\""),
            "{page}"
        );
    }

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
