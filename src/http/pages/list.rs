//! The list of segments, and the page of a service without visits.

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::layout::{self, Page, Refresh};
use super::links::{BasePath, with_query};
use super::names::{name, visible};
use super::ranges::DEFAULT_LABEL;
use super::{chart, format};
use crate::domain::{Timestamp, Window};
use crate::estimator::overlap::Overlaps;
use crate::estimator::{CountedSegment, Order};

/// Segments per page.
pub const ROWS: usize = 100;

/// Label of the button while fewer than two segments are selected.
const COMPARE: &str = "Compare selected segments";

/// Data of the page.
pub struct List<'a> {
    /// The segments of this page, in order.
    pub rows: Vec<Row>,
    /// Prefix of the names.
    pub prefix: &'a str,
    pub order: Order,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// Whether this is the first page.
    pub is_first: bool,
    /// Time of the counts.
    pub now: Timestamp,
    /// Window of the counts.
    pub window: Window,
}

/// Row of the list.
pub struct Row {
    pub counted: CountedSegment,
    /// Past counts, in even steps until now.
    pub trend: Vec<Option<u64>>,
}

/// Renders the page.
pub fn page(list: &List<'_>, base_url: &BaseUrl) -> Markup {
    let is_empty = list.rows.is_empty() && list.prefix.is_empty() && list.is_first;
    let main = if is_empty { welcome(list, base_url) } else { search(list) };
    layout::page(BasePath::Root, Page::List, "Segments", Refresh::Periodic, &main)
}

fn search(list: &List<'_>) -> Markup {
    html! {
        h1 { "Segments" }
        (layout::as_of(list.now, Some(list.window)))
        form .tools method="get" action="./" role="search" {
            div .field {
                label for="prefix" { "Search segments" }
                input #prefix type="search" name="prefix" value=(list.prefix) autocomplete="off" spellcheck="false" maxlength="128";
            }
            @if list.order != Order::Count { input type="hidden" name="sort" value=(sort_parameter(list.order)); }
            button type="submit" { "Search" }
            @if !list.prefix.is_empty() { a .button href=(link(list, "", None)) { "Clear" } }
        }
        @if list.rows.is_empty() {
            div .nothing #nothing {
                @if list.prefix.is_empty() { p { "No more segments." } }
                @else { p { "No active segment starts with “" (name(list.prefix)) "”." } }
                p { a href="./" { "All segments" } }
            }
        } @else { (table(list)) }
    }
}

fn table(list: &List<'_>) -> Markup {
    let largest = list.rows.iter().filter_map(|row| row.counted.count).max().unwrap_or_default();
    let has_trends = list.rows.iter().any(|row| row.trend.iter().any(Option::is_some));
    let shown = format::counted(list.rows.len() as u64, "segment", "segments");
    let shown = match (list.is_first, &list.next) {
        (true, None) => shown,
        (true, Some(_)) => format!("The first {shown}"),
        (false, _) => format!("The next {shown}"),
    };
    html! {
        form .list method="get" action="pages/overlap" data-max=(Overlaps::MAX_SEGMENTS) {
            table #segments {
                caption {
                    (shown)
                    @if !list.prefix.is_empty() { " starting with “" (name(list.prefix)) "”" }
                    ", " (order_label(list.order)) ". Bars compare with the largest segment on this page."
                }
                thead {
                    tr {
                        th .pick scope="col" { span .said { "Compare" } }
                        (heading(list, Order::Name, "Segment", "ascending", "name"))
                        (heading(list, Order::Count, "Users", "descending", "number"))
                        th .share scope="col" { span .said { "Relative to the largest" } }
                        @if has_trends { th .trend scope="col" { (DEFAULT_LABEL) } }
                    }
                }
                tbody {
                    @for row in &list.rows {
                        @let segment = row.counted.segment.as_str();
                        tr {
                            td .pick {
                                @if row.counted.count.is_some() {
                                    input type="checkbox" name="segment" value=(segment) aria-label={ "Compare " (visible(segment)) };
                                }
                            }
                            th .name scope="row" { a href=(with_query("pages/segment", [("name", segment)])) { (name(segment)) } }
                            @if let Some(count) = row.counted.count {
                                td .number { (format::number(count)) }
                                td .share { (chart::meter(count, largest)) }
                            } @else {
                                td .number title="The segment’s key in Redis is not a sorted set: another program writes to this Redis." { "no count" }
                                td .share {}
                            }
                            @if has_trends {
                                td .trend { (chart::spark(&chart::spark_label(&row.trend, DEFAULT_LABEL), &row.trend)) }
                            }
                        }
                    }
                }
            }
            div .foot {
                button type="submit" data-text=(COMPARE) { (COMPARE) }
                span .muted { "Select " (Overlaps::MIN_SEGMENTS) "–" (Overlaps::MAX_SEGMENTS) }
                @if !list.is_first || list.next.is_some() {
                    nav aria-label="Pages of the list" {
                        ul {
                            @if !list.is_first { li { a href=(link(list, list.prefix, None)) { "First page" } } }
                            @if let Some(next) = &list.next {
                                li { a #next rel="next" href=(link(list, list.prefix, Some(next))) { "Next " (ROWS) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the parameter `sort`, which the default order omits.
const fn sort_parameter(order: Order) -> &'static str {
    match order {
        Order::Count => "",
        Order::Name => "name",
        Order::Growth => "change",
        Order::Decline => "-change",
        Order::Newest => "new",
    }
}

const fn order_label(order: Order) -> &'static str {
    match order {
        Order::Count => "largest first",
        Order::Name => "by name",
        Order::Growth => "the fastest growing first",
        Order::Decline => "the fastest shrinking first",
        Order::Newest => "the newest first",
    }
}

/// Renders the heading of a column, with a link to the first page in its order.
fn heading(list: &List<'_>, order: Order, text: &str, direction: &str, class: &str) -> Markup {
    let is_current = list.order == order;
    let other = List { order, rows: Vec::new(), next: None, ..*list };
    html! {
        th class=(class) scope="col" aria-sort=[is_current.then_some(direction)] {
            a href=(link(&other, list.prefix, None)) {
                (text)
                @if is_current { span aria-hidden="true" { @if order == Order::Count { " ↓" } @else { " ↑" } } }
            }
        }
    }
}

fn link(list: &List<'_>, prefix: &str, cursor: Option<&str>) -> String {
    let parameters = [("prefix", prefix), ("sort", sort_parameter(list.order)), ("cursor", cursor.unwrap_or_default())];
    with_query("./", parameters)
}

/// Renders instructions for a service without visits.
fn welcome(list: &List<'_>, base_url: &BaseUrl) -> Markup {
    html! {
        h1 { "No segments yet" }
        p .lead {
            "No user was seen in the last " (format::span(list.window.duration()))
            ". Send a visit, and its segment appears here."
        }
        (layout::as_of(list.now, None))
        section #first-visit {
            h2 { "Send the first visit" }
            pre tabindex="0" { code { (base_url.post_visit("u104010", "sports")) } }
            p .note { "Paste it into a terminal. The answer is " code { "204 No Content" } " once the visit is stored." }
        }
        section {
            h2 { "Or load demo data" }
            pre tabindex="0" { code { "segment-estimator demo" } }
            p .note {
                "Fills an empty data set with 300 segments and two weeks of visits. Run it with the settings of this service. From a checkout: "
                code { "make run ARGS=demo" } "."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SegmentName;
    use crate::estimator::Changes;

    fn row(segment: &str, count: u64, trend: &[Option<u64>]) -> Row {
        let segment = SegmentName::parse(segment.to_owned()).unwrap();
        Row {
            counted: CountedSegment { segment, count: Some(count), changes: Changes::default() },
            trend: trend.to_vec(),
        }
    }

    fn list(rows: Vec<Row>) -> List<'static> {
        List {
            rows,
            prefix: "",
            order: Order::Count,
            next: None,
            is_first: true,
            now: Timestamp::from_rfc3339("2026-11-22T10:00:05Z").unwrap(),
            window: Window::parse("14d").unwrap(),
        }
    }

    fn html(list: &List<'_>) -> String {
        page(list, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn row_has_name_count_and_a_bar_relative_to_the_largest() {
        let page = html(&list(vec![row("sports", 4_000, &[]), row("a&b", 1_000, &[])]));
        assert!(page.contains("<a href=\"pages/segment?name=a%26b\"><bdi>a&amp;b</bdi></a>"), "{page}");
        assert!(page.contains("<td class=\"number\">4,000</td>"), "{page}");
        assert!(page.contains("width=\"100.000%\"") && page.contains("width=\"25.000%\""), "{page}");
        assert!(!page.contains("class=\"trend\""), "without history there is no column for it: {page}");
        assert!(page.contains("2 segments, largest first"), "{page}");
        assert!(page.contains("datetime=\"2026-11-22T10:00:05.000Z\">22 Nov 2026, 10:00:05 UTC</time>"), "{page}");
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
        assert!(page.contains("aria-label=\"14 days: between 1 and 2\""), "{page}");
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
