//! `/pages/overlap`: picking segments, and how many users they have in common.

use std::borrow::Cow;

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::format;
use super::layout::{self, Page, Refresh};
use super::links::BasePath;
use super::links::{encoded, with_query};
use super::names::{name as shown_name, visible};
use crate::domain::{Timestamp, Window};
use crate::estimator::overlap::Overlaps;

/// How many fields there are at the least.
const FIELDS: usize = 3;

/// Segments that were selection, and the names that are offered.
pub struct Selection<'a> {
    /// Their names, as they were written.
    pub names: Vec<&'a str>,
    /// The names of segments that there are, or of some.
    pub offered: Vec<String>,
}

/// What the segments have in common.
pub struct Common {
    /// How many users are in any of them.
    pub any: u64,
    /// In all of them.
    pub all: u64,
    /// In each.
    pub counts: Vec<u64>,
    /// In each two: first, second, and how many.
    pub pairs: Vec<(usize, usize, u64)>,
    /// The moment that is of.
    pub now: Timestamp,
    /// The window it is over.
    pub window: Window,
}

/// The page, with a result if there is one.
pub fn page(selection: &Selection<'_>, common: Option<&Common>, base_url: &BaseUrl) -> Markup {
    let main = html! {
        h1 { "Overlap" }
        p .lead { "How many users two to eight segments have in common: exact numbers of distinct users." }
        @if common.is_none() && selection.names.len() == 1 { p .lead #one-more { "Pick one more to compare it with." } }
        (form(selection))
        @if let Some(common) = common { (result(&selection.names, common, base_url)) }
    };
    // It isn't asked for again by itself: it has Redis read all members.
    layout::page(BasePath::Pages, Page::Overlap, "Overlap", Refresh::Never, &main)
}

/// The fields for the segments, with what was selection.
pub fn form(selection: &Selection<'_>) -> Markup {
    let fields = (selection.names.len() + 1).clamp(FIELDS, Overlaps::MOST);
    html! {
        form #pick method="get" action="overlap" {
            fieldset {
                legend .said { "Segments to compare" }
                div .picks {
                    @for at in 0..fields {
                        div {
                            label for={ "segment-" (at + 1) } { "Segment " (at + 1) @if at >= 2 { " (optional)" } }
                            input id={ "segment-" (at + 1) } type="text" name="segment" list="names" autocomplete="off" spellcheck="false"
                                maxlength="128" value=(selection.names.get(at).copied().unwrap_or_default());
                        }
                    }
                }
            }
            datalist #names { @for name in &selection.offered { option value=(name) label=[differing(name)] {} } }
            div .tools {
                button .chief type="submit" { "Compare" }
                @if !selection.names.is_empty() { a .button href="overlap" { "Clear" } }
            }
        }
    }
}

/// How a name is shown, if that differs from the name: a field must have the name itself.
fn differing(name: &str) -> Option<Cow<'_, str>> {
    Some(visible(name)).filter(|shown| shown != name)
}

fn result(names: &[&str], common: &Common, base_url: &BaseUrl) -> Markup {
    let Common { any, all, counts, now, window, .. } = common;
    let (in_all, in_any) =
        if names.len() == 2 { ("In both", "In either") } else { ("In all of them", "In any of them") };
    html! {
        section #result aria-labelledby="in-common" {
            h2 #in-common { "In common" }
            (layout::as_of(*now, Some(*window)))
            dl .pair {
                div { dt { (in_all) } dd #all data-count=(all) { (format::number(*all)) } dd { (format::share(*all, *any)) " of all these users" } }
                div { dt { (in_any) } dd #any data-count=(any) { (format::number(*any)) } dd { "each counted once" } }
            }
        }
        section aria-labelledby="two-by-two" {
            h2 #two-by-two { "Two by two" }
            p .note { "Users who are in both, and what share of the row’s segment that is." }
            div .scroll tabindex="0" role="group" aria-label="Matrix of pairs" {
                table .matrix #matrix {
                    caption .said { "Users in both the segment of the row and that of the column" }
                    thead {
                        tr {
                            th scope="col" { span .said { "Segment" } }
                            @for (letter, name) in ('A'..).zip(names) {
                                th scope="col" title=(visible(name)) { span aria-hidden="true" { (letter) } span .said { (shown_name(name)) } }
                            }
                        }
                    }
                    tbody {
                        @for (row, (letter, name)) in ('A'..).zip(names).enumerate() {
                            tr {
                                th scope="row" {
                                    span .letter aria-hidden="true" { (letter) }
                                    a href=(with_query("segment", [("name", *name)])) { (shown_name(name)) }
                                }
                                @for column in 0..names.len() { (cell(common, row, column, counts[row])) }
                            }
                        }
                    }
                }
            }
        }
        section aria-labelledby="calls" {
            h2 #calls { "Ask for these numbers" }
            pre tabindex="0" { code { (call(names, base_url)) } }
        }
    }
}

fn cell(common: &Common, row: usize, column: usize, whole: u64) -> Markup {
    if row == column {
        return html! { td .self data-count=(whole) { (format::number(whole)) small { "all" } } };
    }
    let is_it = |first, second| (first, second) == (row, column) || (second, first) == (row, column);
    let pair = common.pairs.iter().find(|(first, second, _)| is_it(*first, *second));
    let both = pair.map(|(.., both)| *both).unwrap_or_default();
    html! {
        td class=(tint(both, whole)) data-count=(both) { (format::number(both)) small { (format::share(both, whole)) } }
    }
}

/// How dark a cell is: the larger the part, the darker.
const fn tint(part: u64, whole: u64) -> &'static str {
    // In 128 bits, so that no count is too large.
    let percent = if whole == 0 { 0 } else { part as u128 * 100 / whole as u128 };
    match percent {
        _ if part == 0 => "t0",
        0..10 => "t1",
        10..25 => "t2",
        25..50 => "t3",
        50..75 => "t4",
        _ => "t5",
    }
}

fn call(names: &[&str], base_url: &BaseUrl) -> String {
    let parameters: Vec<_> = names.iter().map(|name| format!("segment={}", encoded(name))).collect();
    base_url.get(&format!("/overlap?{}", parameters.join("&")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn html(names: &[&str], common: Option<&Common>) -> String {
        let selection = Selection { names: names.to_vec(), offered: vec!["a\"b".to_owned()] };
        page(&selection, common, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn a_matrix_has_each_pair_twice_as_a_part_of_its_row() {
        let common = Common {
            any: 1_300,
            all: 200,
            counts: vec![1_000, 500],
            pairs: vec![(0, 1, 200)],
            now: Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap(),
            window: Window::parse("14d").unwrap(),
        };
        let page = html(&["sports", "<b>"], Some(&common));
        for cell in [
            "<td class=\"self\" data-count=\"1000\">1,000<small>all</small></td>",
            "<td class=\"t2\" data-count=\"200\">200<small>20.0%</small></td>",
            "<td class=\"t3\" data-count=\"200\">200<small>40.0%</small></td>",
            "id=\"all\" data-count=\"200\">200<",
            "id=\"any\" data-count=\"1300\">1,300<",
            "curl 'http://localhost:8080/overlap?segment=sports&amp;segment=%3Cb%3E'",
        ] {
            assert!(page.contains(cell), "{cell} is not in {page}");
        }
        assert!(!page.contains("<b>"), "{page}");
        assert!(!page.contains("data-refresh"), "it is not asked for again by itself");
    }

    #[rstest]
    #[case(&[], 3)]
    #[case(&["a", "b", "c"], 4)]
    #[case(&["a", "b", "c", "d", "e", "f", "g", "h"], 8)]
    fn there_is_a_field_more_than_was_picked_up_to_eight(#[case] names: &[&str], #[case] fields: usize) {
        let page = html(names, None);
        assert_eq!(page.matches("name=\"segment\"").count(), fields);
        assert!(names.iter().all(|name| page.contains(&format!("value=\"{name}\""))), "{page}");
        assert!(page.contains("<option value=\"a&quot;b\">"), "{page}");
    }

    #[rstest]
    #[case(0, 10, "t0")]
    #[case(1, 1_000, "t1")]
    #[case(10, 10, "t5")]
    #[case(u64::MAX, u64::MAX, "t5")]
    #[case(0, 0, "t0")]
    fn a_larger_part_is_darker(#[case] part: u64, #[case] whole: u64, #[case] class: &str) {
        assert_eq!(tint(part, whole), class);
    }
}
