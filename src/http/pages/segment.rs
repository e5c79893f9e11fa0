//! `/pages/segment`: how many are in a segment, when they were last seen, and how many there were.

use std::time::Duration;

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::histogram::{Seen, histogram};
use super::history::{Past, USUAL_DAYS, past};
use super::layout::{self, Page, Refresh};
use super::links::BasePath;
use super::links::{encoded, with_query};
use super::{format, names};
use crate::domain::{Timestamp, Window};

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

/// The page.
pub fn page(segment: &Segment<'_>, base_url: &BaseUrl) -> Markup {
    let Segment { name, window, .. } = segment;
    let main = html! {
        p .back { a href="../" { "← All segments" } }
        h1 { (names::name(name)) }
        p .figure #count data-count=(segment.count) { (format::number(segment.count)) }
        p { @if segment.count == 1 { "user was" } @else { "users were" } " seen in the last " (format::span(window.duration())) }
        (layout::as_of(segment.now, None))
        (windows(segment))
        section aria-labelledby="last-seen" {
            h2 #last-seen { "When they were last seen" }
            p .note {
                "Each stays for " (format::span(segment.longest.duration())) " after the last visit: bars on the left leave first, unless they come back."
            }
            @if segment.count == 0 && *window < segment.longest { p .nothing { "Nobody was seen in the last " (format::span(window.duration())) "." } }
            @else if segment.count == 0 { p .nothing { "Nobody is in it now." } }
            @else { (histogram(segment)) }
        }
        section aria-labelledby="over-time" {
            h2 #over-time { "Over time" }
            (past(segment))
        }
        section aria-labelledby="calls" {
            h2 #calls { "Ask for these numbers" }
            pre tabindex="0" { code { (calls(segment, base_url)) } }
        }
    };
    layout::page(BasePath::Pages, Page::Segment, name, Refresh::Periodic, &main)
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
                        (format::span(window.duration()))
                    } }
                }
            }
        }
    }
}

/// The link to the page of the same segment over another window, or further back.
pub fn link(segment: &Segment<'_>, window: Window, days: u64) -> String {
    let window = if window == segment.longest { String::new() } else { window.to_string() };
    let days = if days == USUAL_DAYS { String::new() } else { days.to_string() };
    with_query("segment", [("name", segment.name), ("window", &window), ("days", &days)])
}

/// The calls behind the page.
fn calls(segment: &Segment<'_>, base_url: &BaseUrl) -> String {
    let Segment { name, now, past, .. } = segment;
    let path = format!("/segments/{}", encoded(name));
    let window = if segment.window == segment.longest { String::new() } else { segment.window.to_string() };
    let buckets = segment.last_seen.len().to_string();
    let from = (*now - Duration::from_secs(past.days * 86_400)).as_millis() / 1_000;
    let step = humantime::format_duration(past.step).to_string();
    let calls = [
        with_query(&format!("{path}/count"), [("window", window.as_str())]),
        with_query(&format!("{path}/histogram"), [("buckets", buckets.as_str()), ("window", &window)]),
        with_query(&format!("{path}/history"), [("from", from.to_string().as_str()), ("step", &step)]),
    ];
    calls.map(|path| base_url.get(&path)).join("\n")
}

#[cfg(test)]
mod tests {
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
            past: Past { days: 1, is_readable: true, points: points.collect(), step: hour, interval: Some(hour) },
        }
    }

    fn html(segment: &Segment<'_>) -> String {
        page(segment, &BaseUrl::at("http://localhost:8080")).into_string()
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
        assert!(page.contains("no samples of this time") && !page.contains("id=\"history\""), "{page}");
        new.past.interval = None;
        assert!(html(&new).contains("history_interval"));
        new.past.is_readable = false;
        assert!(html(&new).contains("key in Redis holds something else"));
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
}
