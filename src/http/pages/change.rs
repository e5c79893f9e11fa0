//! Renders how a count has changed.

use std::cmp::Ordering;

use maud::{Markup, html};

use crate::estimator::Change;
use crate::http::format;

/// Renders `change` as an arrow, the difference and its percentage: `▼ 217 (-5.2%)`. A change of estimates is shown if
/// it exceeds its error.
pub fn change(change: Change) -> Markup {
    let difference = change.difference();
    if !difference.exceeds_error() {
        return html! { "Within the error" };
    }
    let (arrow, said) = match change.absolute().cmp(&0) {
        Ordering::Less => ("▼", "Down "),
        Ordering::Equal => return html! { "Unchanged" },
        Ordering::Greater => ("▲", "Up "),
    };
    html! {
        span aria-hidden="true" { (arrow) " " } span .said { (said) } (format::users(difference))
        @if let Some(relative) = change.relative() { " (" (format::relative_change(relative)) ")" }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::{Depth, Estimate, Timestamp};

    #[rstest]
    #[case::decline(4_200, 3_983, "▼ </span><span class=\"said\">Down </span>217 (-5.2%)")]
    #[case::growth(10, 1_010, "▲ </span><span class=\"said\">Up </span>1,000 (+10,000%)")]
    #[case::tiny(1_000_000, 1_000_001, "▲ </span><span class=\"said\">Up </span>1 (+<0.1%)")]
    #[case::from_zero(0, 4, "▲ </span><span class=\"said\">Up </span>4")]
    #[case::none(4, 4, "Unchanged")]
    fn change_has_arrow_difference_and_percentage(#[case] before: u64, #[case] after: u64, #[case] expected: &str) {
        let shown = shown(before.into(), after.into());
        assert!(shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn change_of_estimates_is_shown_if_it_exceeds_the_error() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let growth = shown(estimate(40_000), estimate(44_000));
        assert!(growth.ends_with("▲ </span><span class=\"said\">Up </span>≈ 512,000 (+10.0%)"), "{growth}");
        assert_eq!(shown(estimate(40_000), estimate(40_100)), "Within the error");
    }

    fn shown(before: Estimate, after: Estimate) -> String {
        let time = Timestamp::from_millis(0);
        change(Change { before, after, from: time, to: time }).into_string().replace("&lt;", "<")
    }
}
