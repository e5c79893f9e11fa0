//! The page that compares segments.

mod letters;
mod pairs;
mod regions;

use maud::{Markup, html};

use self::letters::lettered;
use self::pairs::pairs;
use self::regions::regions;
use super::curl::BaseUrl;
use super::download::csv_link;
use super::estimate;
use super::fields::{number_of_fields, segment_field, suggestions};
use super::layout::{self, Counts, Page, Refresh};
use super::links::{self, BasePath, SegmentLink, audience_link, overlap_link};
use super::names::name as isolated;
use super::similar::{UnknownName, unknown_names};
use super::windows::{unless_configured, windows};
use crate::domain::{Timestamp, Window};
use crate::estimator::overlap::{Overlap, Overlaps};
use crate::http::format;

/// Minimum number of fields in the form.
const MIN_FIELDS: usize = 3;

/// Selected segments and suggestions for more.
pub struct Selection<'a> {
    /// The names as entered.
    pub names: Vec<&'a str>,
    /// Names of existing segments.
    pub suggestions: Vec<String>,
    pub window: Window,
    /// The longest window.
    pub configured: Window,
    /// Whether large segments keep a sample of their users.
    pub is_bounded: bool,
}

impl Selection<'_> {
    /// Returns the link to the comparison of these segments over `window`; `None` is the configured one.
    fn href(&self, window: Option<Window>) -> String {
        overlap_link(&self.names, window)
    }

    fn window(&self) -> Option<Window> {
        unless_configured(self.window, self.configured)
    }
}

/// Result of a comparison.
pub struct Comparison<'a> {
    pub overlap: Overlap,
    /// Time of the numbers.
    pub now: Timestamp,
    pub unknown: Vec<UnknownName<'a>>,
}

impl Comparison<'_> {
    fn counts(&self) -> Counts {
        let Overlap { any, all, counts, .. } = &self.overlap;
        Counts::of(counts.iter().copied().chain([*any, *all]))
    }
}

/// Renders the page, with the result if there is one.
pub fn page(selection: &Selection<'_>, comparison: Option<&Comparison<'_>>, base_url: &BaseUrl) -> Markup {
    let any = if selection.names.len() <= Overlaps::MAX_SEGMENTS { &selection.names[..] } else { &[] };
    let main = html! {
        h1 { "Overlap" }
        p .lead {
            "See how many users " (Overlaps::MIN_SEGMENTS) "–" (Overlaps::MAX_SEGMENTS) " segments share. "
            @if selection.is_bounded { "Counts of large segments are estimates. " } @else { "Counts are exact. " }
            "To count the users in some segments and not in others, " a href=(audience_link([&[], any, &[]], selection.window())) { "define an audience" } "."
        }
        @if comparison.is_none() && selection.names.len() == 1 { p .lead #one-more { "Choose at least one more segment." } }
        (form(selection))
        @if let Some(comparison) = comparison { (result(selection, comparison, base_url)) }
    };
    let counts = comparison.map_or(Counts::None, Comparison::counts);
    // A refresh would make Redis read all members again.
    layout::page(BasePath::Pages, Page::Overlap, "Overlap", Refresh::Never, counts, &main)
}

/// Renders the form with the selected segments.
pub fn form(selection: &Selection<'_>) -> Markup {
    html! {
        form #pick method="get" action="overlap" {
            fieldset {
                legend .said { "Segments to compare" }
                div .picks {
                    @for index in 0..number_of_fields(selection.names.len(), MIN_FIELDS) {
                        @let optional = if index < Overlaps::MIN_SEGMENTS { "" } else { " (optional)" };
                        @let name = selection.names.get(index).copied().unwrap_or_default();
                        (segment_field(&format!("segment-{}", index + 1), &format!("Segment {}{optional}", index + 1), "segment", name))
                    }
                }
            }
            (suggestions(&selection.suggestions))
            @if let Some(window) = selection.window() { input type="hidden" name="window" value=(window); }
            div .tools {
                button .chief type="submit" { "Compare" }
                @if !selection.names.is_empty() { a .button href="overlap" { "Clear" } }
            }
        }
    }
}

fn result(selection: &Selection<'_>, comparison: &Comparison<'_>, base_url: &BaseUrl) -> Markup {
    let (names, Comparison { overlap, now, unknown }) = (&selection.names[..], comparison);
    let (any, all) = (overlap.any, overlap.all);
    let (in_all, in_any) =
        if names.len() == 2 { ("In both", "In either") } else { ("In every segment", "In at least one") };
    let call = links::with_segments("/overlap", names, selection.window());
    let replaced = |unknown: &str, other: &str| {
        let names: Vec<_> = names.iter().map(|&name| if name == unknown { other } else { name }).collect();
        overlap_link(&names, selection.window())
    };
    html! {
        (unknown_names(unknown, replaced))
        section #result aria-labelledby="in-common" {
            h2 #in-common { "Result" }
            (layout::as_of(*now, Some(selection.window)))
            (estimate::note(BasePath::Pages, comparison.counts(), estimate::OF_COMPARISON))
            (windows(selection.window, selection.configured, |window| selection.href(window)))
            dl .pair {
                div { dt { (in_all) } dd #all data-count=(all.count()) { (estimate::figure(all)) } dd { (format::share_of(all, any)) " of the users in at least one" } }
                div { dt { (in_any) } dd #any data-count=(any.count()) { (estimate::figure(any)) } dd { "distinct users" } }
            }
            (legend(names, overlap, selection.window()))
        }
        (regions(names, overlap, selection.window()))
        @if any.count() > 0 { (csv_link(BasePath::Pages, call.trim_start_matches('/'), "every combination")) }
        (pairs(names, overlap, selection.window()))
        section aria-labelledby="calls" {
            h2 #calls { "Get this data from the API" }
            pre tabindex="0" { code { (base_url.get(&call)) } }
        }
    }
}

/// Renders which letter stands for which segment.
fn legend(names: &[&str], overlap: &Overlap, window: Option<Window>) -> Markup {
    html! {
        ul .legend #legend {
            @for ((letter, name), count) in lettered(names).zip(&overlap.counts) {
                li {
                    span .letter { (letter) }
                    a href=(SegmentLink::over(name, window).href()) { (isolated(name)) }
                    span .muted { " " (estimate::counted_users(*count)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::{Depth, Estimate};
    use crate::estimator::overlap::{Pair, Region};

    fn selection<'a>(names: &[&'a str]) -> Selection<'a> {
        let configured = Window::parse("14d").unwrap();
        Selection {
            names: names.to_vec(),
            suggestions: vec!["a\"b".to_owned()],
            window: configured,
            configured,
            is_bounded: false,
        }
    }

    fn html(selection: &Selection<'_>, comparison: Option<&Comparison<'_>>) -> String {
        page(selection, comparison, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    fn comparison<'a>(unknown: Vec<UnknownName<'a>>) -> Comparison<'a> {
        let pairs = vec![Pair { first: 0, second: 1, both: 200.into() }];
        let regions =
            [(0b01, 800), (0b10, 300), (0b11, 200)].map(|(mask, count)| Region { mask, count: count.into() }).to_vec();
        Comparison {
            overlap: Overlap {
                any: 1_300.into(),
                all: 200.into(),
                counts: vec![1_000.into(), 500.into()],
                pairs,
                regions,
            },
            now: Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap(),
            unknown,
        }
    }

    #[test]
    fn result_has_the_figures_and_the_request() {
        let page = html(&selection(&["sports", "<b>"]), Some(&comparison(Vec::new())));
        for part in [
            "id=\"all\" data-count=\"200\">200<",
            "id=\"any\" data-count=\"1300\">1,300<",
            "<span class=\"letter\">B</span><a href=\"segment?name=%3Cb%3E\"><bdi>&lt;b&gt;</bdi></a><span class=\"muted\"> 500 users",
            "curl 'http://localhost:8080/overlap?segment=sports&amp;segment=%3Cb%3E'",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("<b>"), "{page}");
        assert!(!page.contains("data-refresh"), "it does not refresh periodically");
    }

    #[test]
    fn result_of_sampled_segments_has_each_error_and_explains_it_once() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let mut sampled = comparison(Vec::new());
        sampled.overlap = Overlap {
            any: estimate(1_300),
            all: estimate(200),
            counts: vec![estimate(1_000), estimate(500)],
            pairs: vec![Pair { first: 0, second: 1, both: estimate(200) }],
            regions: vec![Region { mask: 0b01, count: estimate(800) }],
        };
        let selection = Selection { is_bounded: true, ..selection(&["sports", "news"]) };
        let page = html(&selection, Some(&sampled));
        for part in [
            "Counts of large segments are estimates.",
            "id=\"all\" data-count=\"25600\">≈ 25,600 <small>± 14 %</small></dd><dd>≈ 15.4% of the users",
            "id=\"any\" data-count=\"166400\">≈ 166,000 <small>± 5.4 %</small></dd>",
            "<span title=\"± 6.2 %\">≈ 128,000 users</span>",
            "<td class=\"t2\" data-count=\"25600\"><span title=\"± 14 %\">≈ 25,600</span><small>≈ 20.0%</small></td>",
            "<span title=\"± 6.9 %\">≈ 102,000</span></a></td><td class=\"number\">≈ 61.5%</td>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("≈ marks an estimate").count(), 1, "{page}");
        assert!(!html(&selection, None).contains('≈'), "a form has no estimates");
    }

    #[test]
    fn result_keeps_the_window_in_its_links() {
        let selection = Selection { window: Window::parse("7d").unwrap(), ..selection(&["a", "b"]) };
        let page = html(&selection, Some(&comparison(Vec::new())));
        for part in [
            "Users seen in the last 7 days",
            "href=\"overlap?segment=a&amp;segment=b\">14 days</a>",
            "href=\"overlap?segment=a&amp;segment=b&amp;window=7d\" aria-current=\"true\">7 days</a>",
            "<input type=\"hidden\" name=\"window\" value=\"7d\">",
            "'http://localhost:8080/overlap?segment=a&amp;segment=b&amp;window=7d'",
            "href=\"audience?all=a&amp;none=b&amp;window=7d\"",
            "</span><a href=\"segment?name=a&amp;window=7d\">",
            "</span><a href=\"segment?name=b&amp;window=7d\"><bdi>b</bdi></a></th>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn result_offers_similar_names_for_unknown_ones() {
        let similar = vec![crate::domain::SegmentName::parse("news").unwrap()];
        let unknown = vec![UnknownName { name: "nwes", similar }, UnknownName { name: "x", similar: Vec::new() }];
        let page = html(&selection(&["nwes", "x"]), Some(&comparison(unknown)));
        let link = "<a href=\"overlap?segment=news&amp;segment=x\"><bdi>news</bdi></a>?</li>";
        assert!(page.contains(&format!("No segment is called “<bdi>nwes</bdi>”. Did you mean {link}")), "{page}");
        assert!(page.contains("No segment is called “<bdi>x</bdi>”. It counts as empty."), "{page}");
    }

    #[rstest]
    #[case::none(&[], 3)]
    #[case::three(&["a", "b", "c"], 4)]
    #[case::eight(&["a", "b", "c", "d", "e", "f", "g", "h"], 8)]
    fn form_has_one_field_more_than_names_up_to_eight(#[case] names: &[&str], #[case] fields: usize) {
        let page = html(&selection(names), None);
        assert_eq!(page.matches("name=\"segment\"").count(), fields);
        assert!(names.iter().all(|name| page.contains(&format!("value=\"{name}\""))), "{page}");
        assert!(page.contains("<option value=\"a&quot;b\">"), "{page}");
    }
}
