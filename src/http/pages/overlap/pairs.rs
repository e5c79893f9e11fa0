//! How many users each two of the segments share.

use maud::{Markup, html};

use super::super::estimate;
use super::super::links::SegmentLink;
use super::super::names::{name as isolated, visible};
use super::letters::lettered;
use crate::domain::{Estimate, Window};
use crate::estimator::overlap::Overlap;
use crate::http::format;

/// Renders a matrix of the pairs.
pub fn pairs(names: &[&str], overlap: &Overlap, window: Option<Window>) -> Markup {
    let base = base(overlap);
    html! {
        section aria-labelledby="two-by-two" {
            h2 #two-by-two { "Pairwise overlap" }
            p .note {
                "Users in both, and their share of the row’s segment."
                " "
                @if let Some((letter, _)) = base.and_then(|base| lettered(names).nth(base)) {
                    "The lift, such as 2×, is how many times more users are in both than if the two segments were independent, among the users of "
                    (letter) "."
                } @else { "To see the lift of each pair, add a segment that has all users of the others." }
            }
            div .scroll tabindex="0" role="group" aria-label="Pairwise overlap table" {
                table .matrix #matrix {
                    caption .said {
                        "Users in both the segment of the row and that of the column, with their share of the former"
                        @if base.is_some() { ", and the lift" }
                    }
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
                                    a href=(SegmentLink::over(name, window).href()) { (isolated(name)) }
                                }
                                @for column in 0..names.len() { (cell(overlap, row, column, base)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the index of the segment that has all users of the others, among whom the lift compares with chance. Without
/// one, the users in none of the segments are unknown, and the lift would be too low.
fn base(overlap: &Overlap) -> Option<usize> {
    let has_pairs_beside_it = overlap.counts.len() > 2;
    overlap.counts.iter().position(|count| has_pairs_beside_it && count.count() == overlap.any.count())
}

fn cell(overlap: &Overlap, row: usize, column: usize, base: Option<usize>) -> Markup {
    let whole = overlap.counts[row];
    if row == column {
        return html! { td .self data-count=(whole.count()) { (estimate::users(whole)) small { "total" } } };
    }
    let cell = (row.min(column), row.max(column));
    let pair = overlap.pairs.iter().find(|pair| (pair.first, pair.second) == cell);
    let both = pair.map(|pair| pair.both).unwrap_or_default();
    // Every segment is independent of the base: its lift is 1.
    let is_pair = base.is_some_and(|base| ![row, column].contains(&base));
    let [both_users, whole_users] = [both, whole].map(Estimate::count);
    let lift = lift(both_users, whole_users, overlap.counts[column].count(), overlap.any.count()).filter(|_| is_pair);
    let sign = if overlap.any.is_exact() { "" } else { "≈ " };
    html! {
        td class=(tint(both_users, whole_users)) data-count=(both_users) {
            (estimate::users(both))
            small { (format::share_of(both, whole)) }
            @if let Some(lift) = lift { small .lift { span .said { "lift " } (sign) (format::factor(lift)) } }
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
        let pairs = pairs.iter().map(|&(first, second, both)| Pair { first, second, both: both.into() }).collect();
        Overlap {
            any: any.into(),
            all: 0.into(),
            counts: counts.iter().map(|count| (*count).into()).collect(),
            pairs,
            regions: Vec::new(),
        }
    }

    #[test]
    fn matrix_has_each_pair_twice_with_its_share_of_the_row() {
        let page = pairs(&["sports", "<b>"], &overlap(1_300, &[1_000, 500], &[(0, 1, 200)]), None).into_string();
        for cell in [
            "<td class=\"self\" data-count=\"1000\">1,000<small>total</small></td>",
            "<td class=\"t2\" data-count=\"200\">200<small>20.0%</small></td>",
            "<td class=\"t3\" data-count=\"200\">200<small>40.0%</small></td>",
        ] {
            assert!(page.contains(cell), "{cell} is not in {page}");
        }
        assert!(!page.contains("<b>") && !page.contains("class=\"lift\""), "{page}");
        assert!(page.contains("add a segment that has all users of the others"), "{page}");
    }

    #[test]
    fn matrix_has_the_lift_among_the_users_of_a_segment_with_all_of_them() {
        let pairs_of_three = [(0, 1, 100), (0, 2, 50), (1, 2, 20)];
        let page = pairs(&["all", "a", "b"], &overlap(1_000, &[1_000, 100, 50], &pairs_of_three), None).into_string();
        let cell = "20<small>20.0%</small><small class=\"lift\"><span class=\"said\">lift </span>4×</small></td>";
        assert!(page.contains(cell), "{page}");
        assert_eq!(page.matches("class=\"lift\"").count(), 2, "pairs with the base have none: {page}");
        assert!(page.contains("among the users of A."), "{page}");
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
