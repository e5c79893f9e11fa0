//! How many users each two of the segments share.

use maud::{Markup, html};

use super::super::links::with_query;
use super::super::names::{name as isolated, visible};
use super::letters::lettered;
use crate::estimator::overlap::Overlap;
use crate::http::format;

/// Renders a matrix of the pairs.
pub fn pairs(names: &[&str], overlap: &Overlap) -> Markup {
    html! {
        section aria-labelledby="two-by-two" {
            h2 #two-by-two { "Pairwise overlap" }
            p .note {
                "Users in both, and their share of the row’s segment."
                @if has_lift(names) {
                    " The lift (" span .lift { "2×" } ") compares with chance, among the " (format::number(overlap.any))
                    " users in at least one of the segments: above 1 the two share more users than independent segments would. "
                    "Add a segment that has all users, to compare with all."
                }
            }
            div .scroll tabindex="0" role="group" aria-label="Pairwise overlap table" {
                table .matrix #matrix {
                    caption .said { "Users in both the segment of the row and that of the column" }
                    thead {
                        tr {
                            th scope="col" { span .said { "Segment" } }
                            @for (letter, name) in lettered(names) {
                                th scope="col" title=(visible(name)) { span aria-hidden="true" { (letter) } span .said { (isolated(name)) } }
                            }
                        }
                    }
                    tbody {
                        @for (row, (letter, name)) in lettered(names).enumerate() {
                            tr {
                                th scope="row" {
                                    span .letter aria-hidden="true" { (letter) }
                                    a href=(with_query("segment", [("name", name)])) { (isolated(name)) }
                                }
                                @for column in 0..names.len() { (cell(overlap, row, column, has_lift(names))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether the lift says something. Among the users in one of two segments, it is never above 1.
const fn has_lift(names: &[&str]) -> bool {
    names.len() > 2
}

fn cell(overlap: &Overlap, row: usize, column: usize, has_lift: bool) -> Markup {
    let whole = overlap.counts[row];
    if row == column {
        return html! { td .self data-count=(whole) { (format::number(whole)) small { "total" } } };
    }
    let cell = (row.min(column), row.max(column));
    let pair = overlap.pairs.iter().find(|pair| (pair.first, pair.second) == cell);
    let both = pair.map(|pair| pair.both).unwrap_or_default();
    let lift = lift(both, whole, overlap.counts[column], overlap.any).filter(|_| has_lift);
    html! {
        td class=(tint(both, whole)) data-count=(both) {
            (format::number(both))
            small { (format::share(both, whole)) }
            @if let Some(lift) = lift { small .lift { (format::factor(lift)) } }
        }
    }
}

/// Returns how many times more users are in both of two segments than if they were independent, among `any` users; `None`
/// if one of them is empty. This is the lift of association rules: Brin, Motwani, Ullman, Tsur: Dynamic itemset counting
/// and implication rules for market basket data, SIGMOD 1997, where it is called interest.
fn lift(both: u64, one: u64, other: u64, any: u64) -> Option<f64> {
    (one > 0 && other > 0).then(|| both as f64 / one as f64 * (any as f64 / other as f64))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::estimator::overlap::Pair;

    fn overlap(any: u64, counts: &[u64], pairs: &[(usize, usize, u64)]) -> Overlap {
        let pairs = pairs.iter().map(|&(first, second, both)| Pair { first, second, both }).collect();
        Overlap { any, all: 0, counts: counts.to_vec(), pairs, regions: Vec::new() }
    }

    #[test]
    fn matrix_has_each_pair_twice_with_its_share_of_the_row() {
        let page = pairs(&["sports", "<b>"], &overlap(1_300, &[1_000, 500], &[(0, 1, 200)])).into_string();
        for cell in [
            "<td class=\"self\" data-count=\"1000\">1,000<small>total</small></td>",
            "<td class=\"t2\" data-count=\"200\">200<small>20.0%</small></td>",
            "<td class=\"t3\" data-count=\"200\">200<small>40.0%</small></td>",
        ] {
            assert!(page.contains(cell), "{cell} is not in {page}");
        }
        assert!(!page.contains("<b>") && !page.contains("lift"), "{page}");
    }

    #[test]
    fn matrix_of_three_segments_has_the_lift() {
        let pairs_of_three = [(0, 1, 100), (0, 2, 50), (1, 2, 0)];
        let page = pairs(&["all", "a", "b"], &overlap(1_000, &[1_000, 100, 50], &pairs_of_three)).into_string();
        let cell = "<td class=\"t5\" data-count=\"100\">100<small>100%</small><small class=\"lift\">1×</small></td>";
        assert!(page.contains(cell), "{page}");
        assert!(page.contains("0<small>0%</small><small class=\"lift\">0×</small></td>"), "{page}");
    }

    #[rstest]
    #[case::independent(20, 200, 100, 1_000, Some(1.0))]
    #[case::twice(40, 200, 100, 1_000, Some(2.0))]
    #[case::disjoint(0, 200, 100, 1_000, Some(0.0))]
    #[case::empty(0, 0, 100, 1_000, None)]
    fn lift_compares_with_chance(
        #[case] both: u64,
        #[case] one: u64,
        #[case] other: u64,
        #[case] any: u64,
        #[case] expected: Option<f64>,
    ) {
        assert_eq!(lift(both, one, other, any), expected);
        assert_eq!(lift(both, other, one, any), expected);
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
