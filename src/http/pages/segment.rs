//! The page of a segment: its count, when its users were last seen, and its history.

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::histogram::histogram;
use super::history::{History, history};
use super::layout::{self, Counts, Page, Refresh};
use super::links::{BasePath, SegmentLink, overlap_link, segment_call, window_parameter};
use super::windows::{unless_configured, windows};
use super::{change, estimate, names};
use crate::domain::{Estimate, Timestamp, Window};
use crate::estimator::{Change, Histogram};
use crate::http::format;

/// Data of the page.
pub struct Segment<'a> {
    pub name: &'a str,
    /// The users by when they were last seen, with their count.
    pub histogram: Histogram,
    /// The time of the histogram.
    pub now: Timestamp,
    /// The window of the histogram.
    pub window: Window,
    /// The longest window.
    pub configured: Window,
    pub history: History,
    /// The change in a week of the count over the longest window.
    pub change: Option<Change>,
    /// How many users leave within a day unless they return. `None` if the longest window is not longer than a day.
    pub leaving: Option<Estimate>,
}

impl Segment<'_> {
    /// Returns all counts of the page.
    fn counts(&self) -> impl Iterator<Item = Estimate> {
        let change = self.change.map(Change::difference);
        self.history.counts().chain([self.histogram.count]).chain(change)
    }

    fn link(&self) -> SegmentLink<'_> {
        SegmentLink {
            name: self.name,
            window: unless_configured(self.window, self.configured),
            days: self.history.days,
        }
    }
}

/// Renders the page.
pub fn page(segment: &Segment<'_>, base_url: &BaseUrl) -> Markup {
    let &Segment { name, now, window, configured, .. } = segment;
    let count = segment.histogram.count;
    let counts = Counts::of(segment.counts());
    let main = html! {
        p .back { a href="../" { "← All segments" } }
        h1 { (names::name(name)) }
        p .figure #count data-count=(count.count()) { (estimate::figure(count)) }
        p { @if count.count() == 1 { "user was" } @else { "users were" } " seen in the " (format::last(window.duration())) }
        (trend(segment))
        (estimate::note(BasePath::Pages, counts, estimate::OF_SEGMENT))
        (layout::as_of(now, None))
        p { a #compare href=(overlap_link(&[name], unless_configured(window, configured))) { "Compare with another segment" } }
        (windows(window, configured, |window| segment.link().with_window(window).href()))
        div .charts {
            (histogram(name, &segment.histogram, window, configured))
            (history(&segment.history, segment.link(), configured, now))
        }
        section aria-labelledby="calls" {
            h2 #calls { "Get this data from the API" }
            pre tabindex="0" { code { (calls(segment, base_url)) } }
        }
    };
    let title = format!("{} · {name}", format::users(count));
    layout::page(BasePath::Pages, Page::Segment, &title, Refresh::PeriodicAlsoHidden, counts, &main)
}

/// Renders how the count changed, and how it will. Both are known for the longest window alone.
fn trend(segment: &Segment<'_>) -> Markup {
    let (change, leaving) = (segment.change, segment.leaving);
    html! {
        @if segment.window == segment.configured && (change.is_some() || leaving.is_some()) {
            p #trend {
                @if let Some(change) = change {
                    @if change.difference().exceeds_error() { (change::change(change)) } @else { "Unchanged within the error" }
                    " on a week ago"
                }
                @if change.is_some() && leaving.is_some() { " · " }
                @if let Some(leaving) = leaving { @if leaving.is_exact() { "about " } (estimate::users(leaving)) @if leaving.count() == 1 { " leaves" } @else { " leave" } " within 24 h" }
            }
            @if let Some(Change { before, after, from, to }) = change {
                p .compared #compared {
                    "From " (estimate::users(before)) " on " (format::marked(from)) " to " (estimate::users(after)) " on " (format::marked(to)) " UTC"
                }
            }
        }
    }
}

/// Returns the API requests behind the page.
fn calls(segment: &Segment<'_>, base_url: &BaseUrl) -> String {
    let Segment { name, histogram, history, .. } = segment;
    let window = window_parameter(unless_configured(segment.window, segment.configured));
    let buckets = histogram.buckets.len().to_string();
    let from = format::query_time(history.from);
    let step = Window::new(history.step).map(|step| step.to_string()).unwrap_or_default();
    let calls = [
        segment_call(name, "count", [("window", window.as_str())]),
        segment_call(name, "histogram", [("buckets", buckets.as_str()), ("window", &window)]),
        segment_call(name, "history", [("from", from.as_str()), ("step", &step)]),
    ];
    calls.map(|path| base_url.get(&format!("/{path}"))).join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Depth;
    use crate::estimator::Bucket;
    use crate::estimator::history::Point;

    const NOW: &str = "2026-11-22T10:30:00Z";

    /// Returns the point of a step of an hour that begins at `at`.
    fn point(at: Timestamp, count: Option<u64>) -> Point {
        Point { at, to: at + Duration::from_secs(3_600), sampled_at: count.map(|_| at), count: count.map(Into::into) }
    }

    fn segment(name: &str) -> Segment<'_> {
        let now = Timestamp::from_rfc3339(NOW).unwrap();
        let day = Duration::from_secs(86_400);
        let bucket = |ago: u32| Bucket {
            from: now - day * ago,
            to: now - day * (ago - 1),
            count: (u64::from(ago) * 100).into(),
        };
        let window = Window::parse("14d").unwrap();
        let hour = Duration::from_secs(3_600);
        let point = |ago: u32| point(now - hour * ago, (ago != 5).then_some(u64::from(ago) * 1_000));
        let points = Some((0..24).rev().map(point).collect());
        Segment {
            name,
            histogram: Histogram { count: 10_500.into(), buckets: (1..=14).rev().map(bucket).collect() },
            now,
            window,
            configured: window,
            history: History {
                days: 1,
                from: now - day,
                points,
                step: hour,
                interval: Some(hour),
                first_sampled_at: None,
                live: 10_500.into(),
                moment: None,
            },
            change: Some(Change {
                before: 10_717.into(),
                after: 10_500.into(),
                from: Timestamp::from_rfc3339("2026-11-15T10:00:00Z").unwrap(),
                to: Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap(),
            }),
            leaving: Some(39.into()),
        }
    }

    fn html(segment: &Segment<'_>) -> String {
        page(segment, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn page_has_the_count_and_its_time() {
        let page = html(&segment("sports"));
        assert!(page.contains("data-count=\"10500\">10,500</p>"), "{page}");
        assert!(page.contains("datetime=\"2026-11-22T10:30:00.000Z\""), "{page}");
        assert!(page.contains("<title>10,500 · sports – Segment estimator</title>"), "{page}");
        assert!(page.contains("217 (-2.0%) on a week ago · about 39 leave within 24 h</p>"), "{page}");
        let compared = ["From 10,717 on ", ">15 Nov 10:00</time> to 10,500 on ", ">22 Nov 10:00</time> UTC</p>"];
        assert!(compared.iter().all(|part| page.contains(part)), "{page}");
        assert!(page.contains("href=\"overlap?segment=sports\""), "{page}");
    }

    #[test]
    fn page_of_a_sampled_segment_marks_estimates_and_explains_them_once() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let mut sampled = segment("sports");
        sampled.histogram.count = estimate(37_343);
        sampled.histogram.buckets.truncate(1);
        sampled.histogram.buckets[0].count = estimate(2_667);
        sampled.history.live = estimate(37_343);
        sampled.leaving = Some(estimate(300));
        sampled.change =
            sampled.change.map(|change| Change { before: estimate(37_000), after: estimate(37_343), ..change });
        let page = html(&sampled);
        for part in [
            "data-count=\"4779904\">≈ 4,780,000 <small>± 1.0 %</small></p>",
            "<title>≈ 4,780,000 · sports – Segment estimator</title>",
            "Unchanged within the error on a week ago · <span title=\"± 11 %\">≈ 38,400</span> leave within 24 h</p>",
            "From <span title=\"± 1.0 %\">≈ 4,740,000</span> on ",
            "≈ 341,000</span></td><td class=\"number\">≈ 7.1%</td>",
            ": ≈ 341,000 users (≈ 7.1%). They drop out",
            "Counts are as of the time shown, and exact unless marked ≈.",
            "<a href=\"../docs\">API documentation</a>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("≈ marks an estimate: this segment is large").count(), 1, "{page}");
        let exact = html(&segment("sports"));
        assert!(!exact.contains('≈') && exact.contains("Counts are exact as of the time shown."), "{exact}");
    }

    #[test]
    fn page_of_a_shorter_window_has_its_unit_and_no_trend() {
        let mut hours = segment("sports");
        hours.window = Window::parse("24h").unwrap();
        hours.histogram.buckets.truncate(12);
        let page = html(&hours);
        assert!(page.contains("Hours since last visit") && !page.contains("a week ago"), "{page}");
        // The table beside the link has the times of the configured window.
        let note = "Users drop out 14 days after their last visit. In the CSV, leave_from and leave_to are when they leave the \
                    last 24 hours.";
        assert!(page.contains(note) && !html(&segment("sports")).contains("leave_from"), "{page}");
    }

    #[test]
    fn bars_have_titles_and_the_table_has_the_numbers() {
        let page = html(&segment("sports"));
        let title = "Last seen 8 Nov 10:30 to 9 Nov 10:30 UTC: 1,400 users (13.3%). They drop out 22 Nov 10:30 to 23 Nov 10:30 \
                     unless they return.";
        assert!(page.contains(&format!("<title>{title}</title>")), "{page}");
        assert_eq!(page.matches("<g class=\"mark bar\"").count(), 14);
        assert!(page.contains("<td class=\"number\">1,400</td><td class=\"number\">13.3%</td>"), "{page}");
        assert!(
            page.contains("Last seen, days ago") && page.contains(">14</text>") && page.contains(">now</text>"),
            "{page}"
        );
    }

    #[test]
    fn missing_samples_are_shown_as_missing() {
        let page = html(&segment("sports"));
        assert!(page.contains("<title>22 Nov 05:30 UTC: no data</title>"), "{page}");
        assert!(page.contains("<td class=\"number\">no data</td>"), "{page}");
        assert_eq!(page.matches("class=\"gap\"").count(), 1);
        assert!(page.contains("<title>21 Nov 11:30 UTC: 23,000 users</title>"), "{page}");
    }

    #[test]
    fn line_ends_with_the_count_of_this_moment_over_the_longest_window() {
        let mut shorter = segment("sports");
        shorter.window = Window::parse("7d").unwrap();
        shorter.history.live = 12_345.into();
        let page = html(&shorter);
        let reading = "Now, 22 Nov 10:30 UTC: 12,345 users, up 12,345 since 22 Nov 10:30";
        assert!(page.contains(&format!("data-key=\"now\" data-x=\"100.000%\"><title>{reading}</title>")), "{page}");
        assert!(page.contains(&format!("<p class=\"reading\">{reading}</p>")), "{page}");
        assert!(page.contains("<th scope=\"row\">Now</th><td class=\"number\">12,345</td>"), "{page}");
        assert!(page.contains("from 23,000 to 12,345 users, down 10,655 (-46.3%), between 0 and 23,000."), "{page}");
        // Its picture ends with the last sample, so that it stays the same.
        let picture =
            "../segments/sports/history.svg?from=2026-11-21T10:30:00Z&amp;to=2026-11-22T10:30:00Z&amp;step=1h";
        assert!(page.contains(&format!("<a href=\"{picture}\">Chart of the history as SVG</a>")), "{page}");
        assert!(page.contains("<a href=\"../segments/sports/histogram.svg?buckets=14&amp;window=7d\">"), "{page}");
        let note = "The count over the last 14 days, whichever window is chosen above, sampled every hour.";
        assert!(page.contains(note) && !html(&segment("sports")).contains("whichever window"), "{page}");
    }

    #[test]
    fn ranges_longer_than_the_history_are_no_links() {
        let mut new = segment("sports");
        assert!(!html(&new).contains("aria-disabled"), "all are links if the first sample is not known");
        new.history.days = 90;
        new.history.first_sampled_at = Some(new.now - Duration::from_secs(3 * 86_400));
        let page = html(&new);
        assert!(page.contains("days=7\" aria-current=\"true\">7 days</a>"), "the longest range is shown: {page}");
        for text in ["14 days", "3 months", "13 months"] {
            assert!(page.contains(&format!("<a role=\"link\" aria-disabled=\"true\">{text}</a>")), "{page}");
        }
        let since = "Recorded since <time datetime=\"2026-11-19T10:30:00.000Z\">19 Nov 2026</time>";
        assert!(page.contains(since), "{page}");
        assert!(page.contains("segment?name=sports&amp;window=7d&amp;days=90"), "other links keep the choice: {page}");
    }

    #[test]
    fn many_points_are_shown_by_day() {
        let mut long = segment("sports");
        let hour = Duration::from_secs(3_600);
        long.history.days = 7;
        long.history.from = long.now - hour * 168;
        let point = |ago: u32| point(long.now - hour * ago, Some(u64::from(ago)));
        long.history.points = Some((0..168).rev().map(point).collect());
        let page = html(&long);
        let cells = ["11", "34", "11"].map(|count| format!("<td class=\"number\">{count}</td>")).concat();
        assert!(page.contains(&format!("21 Nov 2026</th>{cells}")), "{page}");
    }

    #[test]
    fn page_without_samples_has_no_chart_of_the_history() {
        let mut new = segment("sports");
        new.history.points = Some(vec![point(new.now, None)]);
        let page = html(&new);
        assert!(page.contains("No history yet.") && !page.contains("id=\"history\""), "{page}");
        new.history.first_sampled_at = Some(new.now - Duration::from_secs(2 * 86_400));
        assert!(html(&new).contains("No data in this range."));
        new.history.first_sampled_at = None;
        new.history.interval = None;
        assert!(html(&new).contains("history_interval"));
        new.history.points = None;
        assert!(html(&new).contains("key in Redis holds something else"));
    }

    #[test]
    fn hostile_names_are_escaped() {
        let page = html(&segment("</title><script>\"' a/b"));
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(page.contains("/segments/%3C%2Ftitle%3E%3Cscript%3E%22%27%20a%2Fb/count"), "{page}");
        assert!(
            page.contains("href=\"segment?name=%3C%2Ftitle%3E%3Cscript%3E%22%27%20a%2Fb&amp;window=7d&amp;days=1\""),
            "{page}"
        );
    }
}
