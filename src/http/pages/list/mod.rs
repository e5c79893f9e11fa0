//! The list of segments.

mod data;
mod headings;

use maud::{Markup, html};

pub use self::data::{DEFAULT_ROWS, List, MAX_ROWS, Row};
use self::data::{OFFERED_ROWS, call, limit_parameter, link, order_label, sort_parameter};
use self::headings::{change_heading, heading, orders};
use super::curl::BaseUrl;
use super::download::csv_link;
use super::layout::{self, Page, Refresh};
use super::links::{BasePath, SegmentLink};
use super::names::{name, visible};
use super::ranges::DEFAULT_LABEL;
use super::similar::did_you_mean;
use super::welcome::welcome;
use super::windows::windows;
use super::{estimate, spark};
use crate::estimator::Order;
use crate::estimator::overlap::Overlaps;
use crate::http::format;

/// Label of the button while fewer than two segments are selected.
const COMPARE: &str = "Compare selected segments";

/// Renders the page.
pub fn page(list: &List<'_>, base_url: &BaseUrl) -> Markup {
    let is_empty = list.rows.is_empty() && !list.is_filtered() && list.is_first;
    let main = if is_empty { welcome(list.now, list.window, base_url) } else { search(list) };
    layout::page(BasePath::Root, Page::List, "Segments", Refresh::Periodic, list.counts(), &main)
}

fn search(list: &List<'_>) -> Markup {
    let unfiltered = List { prefix: "", contains: "", ..list.first_page(list.order) };
    let searching = |contains: &str| link(&List { prefix: "", contains, ..list.first_page(list.order) }, None);
    let over = |window: Option<_>| {
        link(&List { window: window.unwrap_or(list.configured), ..list.first_page(list.order) }, None)
    };
    html! {
        div .top {
            div {
                h1 { "Segments" }
                (layout::as_of(list.now, Some(list.window)))
            }
            form .tools method="get" action="./" role="search" {
                div .field {
                    label for="search" { "Search segments" }
                    input #search type="search" name="contains" value=(list.contains) autocomplete="off" spellcheck="false" maxlength="128";
                }
                @if !list.prefix.is_empty() { input type="hidden" name="prefix" value=(list.prefix); }
                @if list.order != Order::Count { input type="hidden" name="sort" value=(sort_parameter(list.order)); }
                @if let Some(window) = list.shorter_window() { input type="hidden" name="window" value=(window); }
                @if list.limit != DEFAULT_ROWS { input type="hidden" name="limit" value=(limit_parameter(list.limit)); }
                button type="submit" { "Search" }
                @if list.is_filtered() { a .button href=(link(&unfiltered, None)) { "Clear" } }
            }
        }
        div .options {
            (windows(list.window, list.configured, over))
            (orders(list))
        }
        (estimate::note(BasePath::Root, list.counts(), estimate::OF_SEGMENTS))
        @if list.rows.is_empty() {
            div .nothing #nothing {
                @if list.is_filtered() { p { "No active segment " (filter(list, "starts", "contains")) "." } }
                @else { p { "No more segments." } }
                @if !list.similar.is_empty() { p #similar { (did_you_mean(&list.similar, searching)) } }
                p { a href="./" { "All segments" } }
            }
        } @else { (table(list)) }
    }
}

/// Renders what all names on the page have in common.
fn filter(list: &List<'_>, starts: &str, contains: &str) -> Markup {
    html! {
        @if !list.prefix.is_empty() { (starts) " with “" (name(list.prefix)) "”" }
        @if !list.prefix.is_empty() && !list.contains.is_empty() { " and " }
        @if !list.contains.is_empty() { (contains) " “" (name(list.contains)) "”" }
    }
}

/// Returns which segments the page has: `101–200 of 10,021 segments`.
fn shown(list: &List<'_>) -> String {
    let rows = list.rows.len() as u64;
    let counted = format::counted(rows, "segment", "segments");
    if list.is_first && list.next.is_none() {
        return counted;
    }
    let range = |before| format!("{}–{}", format::number(before + 1), format::number(before + rows));
    match (list.before, list.total) {
        (Some(before), Some(total)) => format!("{} of {} segments", range(before), format::number(total)),
        (Some(before), None) => format!("Segments {}", range(before)),
        (None, _) => format!("{counted} of several pages"),
    }
}

fn table(list: &List<'_>) -> Markup {
    // Both are of the count over the configured window. Beside that over a shorter one they would mislead.
    let is_comparable = list.shorter_window().is_none();
    let has_trends = is_comparable && list.rows.iter().any(|row| row.trend.iter().any(Option::is_some));
    let has_changes =
        (is_comparable || list.is_by_change()) && list.rows.iter().any(|row| row.counted.changes.week.is_some());
    let has_first_samples = list.order == Order::Newest;
    html! {
        form .list method="get" action="pages/overlap" data-max=(Overlaps::MAX_SEGMENTS) {
            table #segments {
                caption {
                    (shown(list))
                    @if list.is_filtered() { " " (filter(list, "starting", "containing")) }
                    ", " (order_label(list.order)) ". Bars compare with the largest segment."
                    @if has_changes && !is_comparable { " Changes are of the users in the last " (format::span(list.configured.duration())) "." }
                }
                thead {
                    tr {
                        th .pick scope="col" { span .said { "Compare" } }
                        (heading(list, Order::Name, "Segment", "ascending", "name"))
                        (heading(list, Order::Count, "Users", "descending", "number"))
                        @if has_changes { (change_heading(list)) }
                        @if has_first_samples { th .number scope="col" { "Recorded since" } }
                        @if has_trends { th .trend scope="col" { (DEFAULT_LABEL) } }
                    }
                }
                tbody {
                    @for row in &list.rows {
                        @let segment = row.counted.segment.as_str();
                        tr {
                            td .pick {
                                @if row.counted.count.is_some() {
                                    label { input type="checkbox" name="segment" value=(segment) aria-label={ "Compare " (visible(segment)) }; }
                                }
                            }
                            th .name scope="row" { a href={ "pages/" (SegmentLink::over(segment, list.shorter_window()).href()) } { (name(segment)) } }
                            @if let Some(count) = row.counted.count {
                                td .number { (estimate::users(count)) (spark::meter(count.count(), list.largest)) }
                            } @else {
                                td .number title="The segment’s key in Redis is not a sorted set: another program writes to this Redis." { "no count" }
                            }
                            @if has_changes {
                                td .change { (list.change_of(row)) }
                            }
                            @if has_first_samples {
                                td .number .since { @if let Some(first) = row.counted.changes.first_sampled_at { (format::date(first)) } @else { "not yet" } }
                            }
                            @if has_trends {
                                td .trend { (spark::spark(&spark::spark_label(&row.trend, DEFAULT_LABEL), &row.trend)) }
                            }
                        }
                    }
                }
            }
            div .foot {
                button type="submit" data-text=(COMPARE) { (COMPARE) }
                span .muted { "Select " (Overlaps::MIN_SEGMENTS) "–" (Overlaps::MAX_SEGMENTS) }
                (sizes(list))
                (csv_link(BasePath::Root, &call(list), downloaded(list)))
                @if !list.is_first || list.next.is_some() {
                    nav aria-label="Pages of the list" {
                        ul {
                            @if !list.is_first { li { a href=(link(list, None)) { "First page" } } }
                            @if let Some(previous) = &list.previous {
                                li { a #previous rel="prev" href=(link(list, Some(previous))) { "Previous " (format::number(list.limit as u64)) } }
                            }
                            @if let Some(next) = &list.next {
                                li { a #next rel="next" href=(link(list, Some(next))) { "Next " (format::number(list.limit as u64)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns which segments a download has.
fn downloaded(list: &List<'_>) -> &'static str {
    let is_only = list.is_first && list.next.is_none();
    if list.total.map_or(is_only, |total| total <= MAX_ROWS as u64) {
        "all these segments"
    } else {
        "up to 1,000 segments"
    }
}

/// Renders links to other numbers of segments per page, if that changes anything.
fn sizes(list: &List<'_>) -> Markup {
    let is_only = list.is_first && list.next.is_none();
    html! {
        @if !is_only || list.limit > DEFAULT_ROWS {
            nav .choice #sizes aria-label="Segments per page" {
                span aria-hidden="true" { "Per page" }
                ul .choices {
                    @for limit in OFFERED_ROWS {
                        li {
                            a href=(link(&List { limit, ..list.first_page(list.order) }, None))
                                aria-current=[(limit == list.limit).then_some("true")] { (format::number(limit as u64)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::{Depth, Estimate, SegmentName, Timestamp, Window};
    use crate::estimator::{Change, Changes, CountedSegment};

    fn row(segment: &str, count: u64, trend: &[Option<u64>]) -> Row {
        let segment = SegmentName::parse(segment.to_owned()).unwrap();
        Row {
            counted: CountedSegment { segment, count: Some(count.into()), changes: Changes::default() },
            trend: trend.iter().map(|count| count.map(Into::into)).collect(),
        }
    }

    fn list(rows: Vec<Row>) -> List<'static> {
        List {
            rows,
            prefix: "",
            contains: "",
            order: Order::Count,
            previous: None,
            next: None,
            is_first: true,
            before: Some(0),
            total: None,
            limit: DEFAULT_ROWS,
            largest: 4_000,
            now: Timestamp::from_rfc3339("2026-11-22T10:00:05Z").unwrap(),
            window: Window::parse("14d").unwrap(),
            configured: Window::parse("14d").unwrap(),
            similar: Vec::new(),
        }
    }

    fn html(list: &List<'_>) -> String {
        page(list, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn row_has_name_count_and_a_bar_relative_to_the_largest() {
        let page = html(&list(vec![row("sports", 4_000, &[]), row("a&b", 1_000, &[])]));
        assert!(page.contains("<a href=\"pages/segment?name=a%26b\"><bdi>a&amp;b</bdi></a>"), "{page}");
        assert!(page.contains("<td class=\"number\">4,000<svg class=\"meter\""), "{page}");
        assert!(page.contains("width=\"100.000%\"") && page.contains("width=\"25.000%\""), "{page}");
        assert!(!page.contains("class=\"trend\""), "without history there is no column for it: {page}");
        assert!(page.contains("2 segments, largest first"), "{page}");
        assert!(page.contains("datetime=\"2026-11-22T10:00:05.000Z\">22 Nov 2026, 10:00:05 UTC</time>"), "{page}");
    }

    #[test]
    fn row_has_the_change_in_a_week_if_one_is_known() {
        let mut rows = vec![row("sports", 40, &[]), row("new", 4, &[]), row("gap", 4, &[])];
        rows[2].counted.changes.first_sampled_at = Some(Timestamp::from_millis(0));
        assert!(!html(&list(rows.clone())).contains("7-day change"));
        rows[0].counted.changes.week = Some(Change {
            before: 50.into(),
            after: 40.into(),
            from: Timestamp::from_millis(0),
            to: Timestamp::from_millis(0),
        });
        let page = html(&List { order: Order::Growth, total: Some(10_021), next: Some("g".to_owned()), ..list(rows) });
        assert!(page.contains("</span>10 (-20.0%)</td>") && page.contains("<td class=\"change\">new</td>"), "{page}");
        assert!(page.contains("<td class=\"change\">–</td>"), "it is older, and a sample is missing: {page}");
        assert!(page.contains("<a href=\"./?sort=-change\">7-day change"), "the link reverses the order: {page}");
        assert!(page.contains("1–3 of 10,021 segments, largest gain in 7 days first"), "{page}");
    }

    #[test]
    fn row_of_a_sampled_segment_has_an_estimate_and_the_page_says_so_once() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let mut rows = vec![row("large", 0, &[]), row("sports", 40, &[])];
        rows[0].counted.count = Some(estimate(37_343));
        rows[0].trend = vec![Some(Estimate::exact(50_000)), Some(estimate(37_343))];
        let time = Timestamp::from_millis(0);
        let (before, after) = (estimate(37_000), estimate(37_343));
        rows[0].counted.changes.week = Some(Change { before, after, from: time, to: time });
        let page = html(&list(rows.clone()));
        for part in [
            "<td class=\"number\"><span title=\"± 1.0 %\">≈ 4,780,000</span><svg",
            "<td class=\"number\">40<svg",
            "<td class=\"change\">Within the error</td>",
            "aria-label=\"14 days: from 50,000 to ≈ 4,780,000, up ≈ 4,730,000 (+9,460%), between 50,000 and ≈ 4,780,000\"",
            "<a href=\"./docs\">API documentation</a>",
            "and exact unless marked ≈.",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("≈ marks an estimate: of a large segment").count(), 1, "{page}");
        assert!(!html(&list(rows.split_off(1))).contains('≈'));
    }

    #[rstest]
    #[case::only(true, None, Some(0), Some(2), "2 segments, ")]
    #[case::first(true, Some("c"), Some(0), Some(10_021), "1–2 of 10,021 segments, ")]
    #[case::later(false, Some("c"), Some(100), Some(10_021), "101–102 of 10,021 segments, ")]
    #[case::last(false, None, Some(10_019), Some(10_021), "10,020–10,021 of 10,021 segments, ")]
    #[case::first_without_total(true, Some("c"), Some(0), None, "Segments 1–2, ")]
    #[case::later_without_total(false, Some("c"), None, None, "2 segments of several pages, ")]
    fn caption_says_which_segments_the_page_has(
        #[case] is_first: bool,
        #[case] next: Option<&str>,
        #[case] before: Option<u64>,
        #[case] total: Option<u64>,
        #[case] expected: &str,
    ) {
        let rows = vec![row("sports", 40, &[]), row("news", 4, &[])];
        let page = html(&List { is_first, next: next.map(str::to_owned), before, total, ..list(rows) });
        assert!(page.contains(&format!("<caption>{expected}")), "{page}");
    }

    #[test]
    fn links_keep_the_number_of_segments_per_page() {
        let rows = vec![row("sports", 40, &[])];
        let page = html(&List { limit: 500, contains: "o", next: Some("c1".to_owned()), ..list(rows) });
        for link in [
            "<a id=\"next\" rel=\"next\" href=\"./?contains=o&amp;limit=500&amp;cursor=c1\">Next 500</a>",
            "<input type=\"hidden\" name=\"limit\" value=\"500\">",
            "<a href=\"./?contains=o\">100</a>",
            "<a href=\"./?contains=o&amp;limit=500\" aria-current=\"true\">500</a>",
            "<a href=\"./?contains=o&amp;limit=1000\">1,000</a>",
        ] {
            assert!(page.contains(link), "{link} is not in {page}");
        }
        assert!(!html(&list(vec![row("sports", 40, &[])])).contains("Per page"), "all segments are shown");
    }

    #[test]
    fn row_without_a_count_says_so_and_has_no_checkbox() {
        let mut rows = vec![row("sports", 40, &[]), row("foreign", 0, &[])];
        rows[1].counted.count = None;
        let page = html(&list(rows));
        assert!(page.contains("another program writes to this Redis.\">no count</td>"), "{page}");
        assert_eq!(page.matches("type=\"checkbox\"").count(), 1, "it can't be compared: {page}");
    }

    #[test]
    fn trend_column_appears_if_one_segment_has_history() {
        let page = html(&list(vec![row("a", 2, &[Some(1), Some(2)]), row("b", 1, &[None, None])]));
        assert_eq!(page.matches("<td class=\"trend\">").count(), 2, "{page}");
        assert!(page.contains("aria-label=\"14 days: from 1 to 2, up 1 (+100.0%), between 1 and 2\""), "{page}");
    }

    #[test]
    fn hostile_names_are_escaped() {
        let name = "\"><script>alert(1)</script>&'";
        let hostile = List { prefix: name, next: Some(name.to_owned()), ..list(vec![row(name, 1, &[Some(1)])]) };
        let page = html(&hostile);
        assert_eq!(page.matches("<script").count(), 1, "ours alone: {page}");
        assert!(!page.contains("\"><script>a"), "{page}");
    }

    #[test]
    fn links_keep_the_prefix_and_sorting_returns_to_the_first_page() {
        let page = html(&List {
            prefix: "s p",
            order: Order::Name,
            next: Some("n1".to_owned()),
            is_first: false,
            ..list(vec![row("s p", 1, &[])])
        });
        assert!(page.contains("href=\"./?prefix=s%20p&amp;sort=name&amp;cursor=n1\""), "{page}");
        assert!(page.contains("<th class=\"number\" scope=\"col\"><a href=\"./?prefix=s%20p\">Users"), "{page}");
        assert!(page.contains("aria-sort=\"ascending\"><a href=\"./?prefix=s%20p&amp;sort=name\">Segment"), "{page}");
        assert!(page.contains(">First page</a>"), "{page}");
    }

    #[test]
    fn page_without_matches_differs_from_that_of_an_empty_service() {
        let page = html(&List { prefix: "x", ..list(Vec::new()) });
        assert!(page.contains("starts with “<bdi>x</bdi>”") && !page.contains("first-visit"), "{page}");
        let page = html(&list(Vec::new()));
        assert!(
            page.contains("curl -i -X POST 'http://localhost:8080/segments'") && !page.contains("<table"),
            "{page}"
        );
    }
}
