//! How many users are in exactly each combination of the segments: an UpSet plot, turned so that each combination is a
//! row of a table. The plot then fits narrow screens, and needs no other table.
//!
//! Source: Lex, Gehlenborg, Strobelt, Vuillemot, Pfister: UpSet: Visualization of Intersecting Sets, IEEE TVCG 20
//! (2014).

use maud::{Markup, html};

use super::super::estimate;
use super::super::links::audience_link;
use super::super::names::visible;
use super::letters::lettered;
use crate::domain::Window;
use crate::estimator::overlap::{Overlap, Region};
use crate::http::charts::plot::percent;
use crate::http::format;

/// Combinations that are shown at once; the rest unfolds.
const MAX_SHOWN: usize = 20;
/// Distance of two dots, in pixels.
const DOT: usize = 18;

/// Renders the combinations with users.
pub fn regions(names: &[&str], overlap: &Overlap, window: Option<Window>) -> Markup {
    let (shown, others) = overlap.regions.split_at(overlap.regions.len().min(MAX_SHOWN));
    let table = |id: &str, caption: &str, regions: &[Region]| {
        html! {
            table .regions id=(id) {
                caption .said { (caption) }
                thead {
                    tr {
                        th scope="col" { span .said { "Combination" } (letters(names)) }
                        th .number scope="col" { "Users" }
                        th .number scope="col" { "Share" }
                        th .bars scope="col" { span .said { "Bar" } }
                    }
                }
                tbody { @for region in regions { (row(names, overlap, *region, window)) } }
            }
        }
    };
    html! {
        section aria-labelledby="combinations" {
            h2 #combinations { "Every combination" }
            @if overlap.regions.is_empty() { p .nothing { "No users in these segments." } }
            @else {
                p .note {
                    "Each user is in one row: in all segments with a dot, and in none of the others. The rows add up to " (estimate::users(overlap.any)) "."
                }
                (table("regions", "Users in exactly each combination of the segments", shown))
                @if !others.is_empty() {
                    details {
                        summary { "Show " (format::counted(others.len() as u64, "more combination", "more combinations")) }
                        (table("other-regions", "Users in each of the other combinations", others))
                    }
                }
            }
        }
    }
}

fn row(names: &[&str], overlap: &Overlap, region: Region, window: Option<Window>) -> Markup {
    let largest = overlap.regions.first().map_or(1, |largest| largest.count.count());
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        let side = if region.segments().any(|segment| segment == index) { &mut inside } else { &mut outside };
        side.push(*name);
    }
    html! {
        tr data-count=(region.count.count()) {
            th scope="row" title=(description(&inside, &outside)) {
                (dots(names.len(), region))
                span .said { (description(&inside, &outside)) }
            }
            td .number { a href=(audience_link([&inside, &[], &outside], window)) { (estimate::users(region.count)) } }
            td .number { (format::share_of(region.count, overlap.any)) }
            td .bars {
                svg aria-hidden="true" width="100%" height="12" {
                    rect .fill width=(percent(region.count.count() as f64 / largest as f64)) height="12" rx="1" {}
                }
            }
        }
    }
}

/// Returns the combination in words: `only “sports” and “news”`.
fn description(inside: &[&str], outside: &[&str]) -> String {
    let names: Vec<_> = inside.iter().map(|name| format!("“{}”", visible(name))).collect();
    let joined = match &names[..] {
        [names @ .., last] if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        names => names.join(""),
    };
    if outside.is_empty() { joined } else { format!("only {joined}") }
}

/// Renders a dot for each segment: the filled ones stand for the segments of the region, and a line connects them.
fn dots(segments: usize, region: Region) -> Markup {
    let center = |index: usize| index * DOT + DOT / 2;
    let inside: Vec<_> = region.segments().collect();
    html! {
        svg .dots aria-hidden="true" width=(segments * DOT) height=(DOT) {
            @for index in 0..segments { circle .out cx=(center(index)) cy=(DOT / 2) r="3.5" {} }
            @if let [first, .., last] = inside[..] {
                line x1=(center(first)) x2=(center(last)) y1=(DOT / 2) y2=(DOT / 2) {}
            }
            @for &index in &inside { circle .in cx=(center(index)) cy=(DOT / 2) r="5" {} }
        }
    }
}

/// Renders the letters of the segments above their dots.
fn letters(names: &[&str]) -> Markup {
    html! {
        svg .dots aria-hidden="true" width=(names.len() * DOT) height="16" {
            @for (index, (letter, name)) in lettered(names).enumerate() {
                text x=(index * DOT + DOT / 2) y="13" text-anchor="middle" { (letter) title { (visible(name)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn overlap(regions: &[(u8, u64)]) -> Overlap {
        let regions: Vec<_> = regions.iter().map(|&(mask, count)| Region { mask, count: count.into() }).collect();
        let any = regions.iter().map(|region| region.count).sum();
        Overlap { any, all: 0.into(), counts: Vec::new(), pairs: Vec::new(), regions }
    }

    #[test]
    fn row_has_dots_words_share_and_a_link_to_its_audience() {
        let page = regions(&["a & b", "news", "tiny"], &overlap(&[(0b101, 30), (0b111, 10)]), None).into_string();
        assert!(page.contains("<span class=\"said\">only “a &amp; b” and “tiny”</span>"), "{page}");
        assert!(page.contains("<span class=\"said\">“a &amp; b”, “news” and “tiny”</span>"), "{page}");
        assert!(page.contains("<a href=\"audience?all=a%20%26%20b&amp;all=tiny&amp;none=news\">30</a>"), "{page}");
        assert!(page.contains("<td class=\"number\">75.0%</td>"), "{page}");
        assert!(page.contains("width=\"33.333%\""), "bars compare with the largest: {page}");
        assert_eq!(page.matches("<circle class=\"in\"").count(), 5);
        assert!(page.contains("<line x1=\"9\" x2=\"45\""), "{page}");
    }

    #[rstest]
    #[case::all_fit(20, 20, false)]
    #[case::others_unfold(23, 20, true)]
    fn many_combinations_unfold(#[case] count: u8, #[case] shown: usize, #[case] unfolds: bool) {
        let many: Vec<_> = (1..=count).map(|mask| (mask, 5)).collect();
        let page = regions(&["a", "b", "c", "d", "e"], &overlap(&many), None).into_string();
        let (first, rest) = page.split_once("</table>").unwrap();
        assert_eq!(first.matches("<tr data-count").count(), shown);
        assert_eq!(rest.contains("Show 3 more combinations"), unfolds, "{rest}");
    }
}
