//! Estimates on a page: a number with its error in a tooltip, and what the sign ≈ means.

use maud::{Markup, html};

use super::layout::Counts;
use super::links::BasePath;
use crate::domain::Estimate;
use crate::http::format;

/// Renders a number of users. The error of an estimate is its tooltip.
pub fn users(users: Estimate) -> Markup {
    with_error(users, &format::users(users))
}

/// Renders a number of users with its noun. The error of an estimate is its tooltip.
pub fn counted_users(users: Estimate) -> Markup {
    with_error(users, &format::counted_users(users))
}

/// Renders the figure of a page: an estimate has its error beside it.
pub fn figure(users: Estimate) -> Markup {
    html! {
        (format::users(users))
        @if let Some(error) = format::error(users) { " " small { (error) } }
    }
}

fn with_error(users: Estimate, text: &str) -> Markup {
    html! {
        @if let Some(error) = format::error(users) { span title=(error) { (text) } } @else { (text) }
    }
}

/// Says what the sign ≈ means, on a page in `base` that shows estimates. `reason` says which segments are large.
pub fn note(base: BasePath, counts: Counts, reason: &str) -> Markup {
    html! {
        @if counts == Counts::Estimated {
            p .note #estimate {
                "≈ marks an estimate: " (reason) ". The true number lies within ± of it in 95 of 100 cases. "
                "In a table, point at a number to see its ±. "
                a href={ (base.root()) "docs" } { "API documentation" }
            }
        }
    }
}

/// The reason on the page of a segment.
pub const OF_SEGMENT: &str = "this segment is large, so the service keeps a random sample of its users";
/// The reason on a page with several segments.
pub const OF_SEGMENTS: &str = "of a large segment, the service keeps a random sample of its users";
/// The reason on a page that compares segments, some of which may be small.
pub const OF_COMPARISON: &str =
    "of a large segment, the service keeps a random sample of its users, and small segments are compared with that";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Depth;

    fn estimate(kept: u64) -> Estimate {
        Estimate::sampled(kept, Depth::from_number(7).unwrap())
    }

    #[test]
    fn exact_number_is_text_alone() {
        for count in [0, 1, 1_234_567] {
            let count = Estimate::exact(count);
            assert_eq!(users(count).into_string(), format::number(count.count()));
            assert_eq!(figure(count).into_string(), format::number(count.count()));
            assert_eq!(counted_users(count).into_string(), format::counted(count.count(), "user", "users"));
        }
    }

    #[test]
    fn estimate_has_its_error_in_a_tooltip_or_beside_it() {
        assert_eq!(users(estimate(37_343)).into_string(), "<span title=\"± 1.0 %\">≈ 4,780,000</span>");
        assert_eq!(counted_users(estimate(1)).into_string(), "<span title=\"± 195 %\">≈ 128 users</span>");
        assert_eq!(figure(estimate(37_343)).into_string(), "≈ 4,780,000 <small>± 1.0 %</small>");
        assert_eq!(figure(estimate(0)).into_string(), "≈ 0");
    }

    #[test]
    fn note_is_there_with_estimates_alone() {
        let note = |counts| note(BasePath::Pages, counts, OF_SEGMENT).into_string();
        assert_eq!(note(Counts::of([Estimate::exact(3)])), "");
        let estimated = note(Counts::of([Estimate::exact(3), estimate(1)]));
        assert!(estimated.contains("≈ marks an estimate: this segment is large"), "{estimated}");
        assert!(estimated.contains("href=\"../docs\""), "{estimated}");
    }
}
