//! The page that compares segments.

use std::borrow::Cow;

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::layout::{self, Page, Refresh};
use super::links::{BasePath, encoded, with_query};
use super::names::{name as isolated, visible};
use crate::domain::{Timestamp, Window};
use crate::estimator::overlap::{Overlap, Overlaps};
use crate::http::format;

/// Minimum number of fields in the form.
const MIN_FIELDS: usize = 3;
/// Maximum number of fields in the form.
const MAX_FIELDS: usize = 2 * Overlaps::MAX_SEGMENTS;

/// Selected segments and suggestions for more.
pub struct Selection<'a> {
    /// The names as entered.
    pub names: Vec<&'a str>,
    /// Names of existing segments.
    pub suggestions: Vec<String>,
}

/// Result of a comparison.
pub struct Comparison {
    pub overlap: Overlap,
    /// Time of the numbers.
    pub now: Timestamp,
    /// Window of the numbers.
    pub window: Window,
}

/// Renders the page, with the result if there is one.
pub fn page(selection: &Selection<'_>, comparison: Option<&Comparison>, base_url: &BaseUrl) -> Markup {
    let main = html! {
        h1 { "Overlap" }
        p .lead { "See how many users " (Overlaps::MIN_SEGMENTS) "–" (Overlaps::MAX_SEGMENTS) " segments share. Counts are exact." }
        @if comparison.is_none() && selection.names.len() == 1 { p .lead #one-more { "Choose at least one more segment." } }
        (form(selection))
        @if let Some(comparison) = comparison { (result(&selection.names, comparison, base_url)) }
    };
    // A refresh would make Redis read all members again.
    layout::page(BasePath::Pages, Page::Overlap, "Overlap", Refresh::Never, &main)
}

/// Renders the form with the selected segments.
pub fn form(selection: &Selection<'_>) -> Markup {
    let fields = (selection.names.len() + 1).clamp(MIN_FIELDS, Overlaps::MAX_SEGMENTS);
    // Too many names are kept for correction, if they are not far too many.
    let fields = fields.max(selection.names.len().min(MAX_FIELDS));
    html! {
        form #pick method="get" action="overlap" {
            fieldset {
                legend .said { "Segments to compare" }
                div .picks {
                    @for index in 0..fields {
                        div {
                            label for={ "segment-" (index + 1) } { "Segment " (index + 1) @if index >= Overlaps::MIN_SEGMENTS { " (optional)" } }
                            input id={ "segment-" (index + 1) } type="text" name="segment" list="names" autocomplete="off" spellcheck="false"
                                maxlength="128" value=(selection.names.get(index).copied().unwrap_or_default());
                        }
                    }
                }
            }
            datalist #names { @for name in &selection.suggestions { option value=(name) label=[escaped_label(name)] {} } }
            div .tools {
                button .chief type="submit" { "Compare" }
                @if !selection.names.is_empty() { a .button href="overlap" { "Clear" } }
            }
        }
    }
}

/// Returns the label of a suggestion whose name has invisible characters. Its value must be the name itself.
fn escaped_label(name: &str) -> Option<Cow<'_, str>> {
    Some(visible(name)).filter(|shown| shown != name)
}

fn result(names: &[&str], comparison: &Comparison, base_url: &BaseUrl) -> Markup {
    let Comparison { overlap, now, window } = comparison;
    let Overlap { any, all, .. } = overlap;
    let (in_all, in_any) =
        if names.len() == 2 { ("In both", "In either") } else { ("In every segment", "In at least one") };
    html! {
        section #result aria-labelledby="in-common" {
            h2 #in-common { "Result" }
            (layout::as_of(*now, Some(*window)))
            dl .pair {
                div { dt { (in_all) } dd #all data-count=(all) { (format::number(*all)) } dd { (format::share(*all, *any)) " of the users in at least one" } }
                div { dt { (in_any) } dd #any data-count=(any) { (format::number(*any)) } dd { "distinct users" } }
            }
        }
        section aria-labelledby="two-by-two" {
            h2 #two-by-two { "Pairwise overlap" }
            p .note { "Users in both, and their share of the row’s segment." }
            div .scroll tabindex="0" role="group" aria-label="Pairwise overlap table" {
                table .matrix #matrix {
                    caption .said { "Users in both the segment of the row and that of the column" }
                    thead {
                        tr {
                            th scope="col" { span .said { "Segment" } }
                            @for (letter, name) in ('A'..).zip(names) {
                                th scope="col" title=(visible(name)) { span aria-hidden="true" { (letter) } span .said { (isolated(name)) } }
                            }
                        }
                    }
                    tbody {
                        @for (row, (letter, name)) in ('A'..).zip(names).enumerate() {
                            tr {
                                th scope="row" {
                                    span .letter aria-hidden="true" { (letter) }
                                    a href=(with_query("segment", [("name", *name)])) { (isolated(name)) }
                                }
                                @for column in 0..names.len() { (cell(overlap, row, column)) }
                            }
                        }
                    }
                }
            }
        }
        section aria-labelledby="calls" {
            h2 #calls { "Get this data from the API" }
            pre tabindex="0" { code { (call(names, base_url)) } }
        }
    }
}

fn cell(overlap: &Overlap, row: usize, column: usize) -> Markup {
    let whole = overlap.counts[row];
    if row == column {
        return html! { td .self data-count=(whole) { (format::number(whole)) small { "total" } } };
    }
    let cell = (row.min(column), row.max(column));
    let pair = overlap.pairs.iter().find(|pair| (pair.first, pair.second) == cell);
    let both = pair.map(|pair| pair.both).unwrap_or_default();
    html! {
        td class=(tint(both, whole)) data-count=(both) { (format::number(both)) small { (format::share(both, whole)) } }
    }
}

/// Returns the CSS class of a cell: the larger the part, the darker.
const fn tint(part: u64, whole: u64) -> &'static str {
    // 128 bits, against overflow.
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
    use crate::estimator::overlap::Pair;

    fn html(names: &[&str], comparison: Option<&Comparison>) -> String {
        let selection = Selection { names: names.to_vec(), suggestions: vec!["a\"b".to_owned()] };
        page(&selection, comparison, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn matrix_has_each_pair_twice_with_its_share_of_the_row() {
        let pairs = vec![Pair { first: 0, second: 1, both: 200 }];
        let comparison = Comparison {
            overlap: Overlap { any: 1_300, all: 200, counts: vec![1_000, 500], pairs, regions: Vec::new() },
            now: Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap(),
            window: Window::parse("14d").unwrap(),
        };
        let page = html(&["sports", "<b>"], Some(&comparison));
        for cell in [
            "<td class=\"self\" data-count=\"1000\">1,000<small>total</small></td>",
            "<td class=\"t2\" data-count=\"200\">200<small>20.0%</small></td>",
            "<td class=\"t3\" data-count=\"200\">200<small>40.0%</small></td>",
            "id=\"all\" data-count=\"200\">200<",
            "id=\"any\" data-count=\"1300\">1,300<",
            "curl 'http://localhost:8080/overlap?segment=sports&amp;segment=%3Cb%3E'",
        ] {
            assert!(page.contains(cell), "{cell} is not in {page}");
        }
        assert!(!page.contains("<b>"), "{page}");
        assert!(!page.contains("data-refresh"), "it does not refresh periodically");
    }

    #[rstest]
    #[case(&[], 3)]
    #[case(&["a", "b", "c"], 4)]
    #[case(&["a", "b", "c", "d", "e", "f", "g", "h"], 8)]
    fn form_has_one_field_more_than_names_up_to_eight(#[case] names: &[&str], #[case] fields: usize) {
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
    fn tint_is_darker_for_larger_parts(#[case] part: u64, #[case] whole: u64, #[case] class: &str) {
        assert_eq!(tint(part, whole), class);
    }
}
