//! Names that are offered in place of an unknown one.

use maud::{Markup, html};

use super::names;
use crate::domain::SegmentName;

/// A name that no segment has.
pub struct UnknownName<'a> {
    pub name: &'a str,
    /// Similar names of segments, the closest first.
    pub similar: Vec<SegmentName<'static>>,
}

/// Asks whether one of `similar` was meant. `href` returns the link to a name.
pub fn did_you_mean(similar: &[SegmentName<'_>], href: impl Fn(&str) -> String) -> Markup {
    html! {
        "Did you mean "
        @for (index, other) in similar.iter().enumerate() {
            @if index > 0 { @if index + 1 == similar.len() { " or " } @else { ", " } }
            a href=(href(other.as_str())) { (names::name(other.as_str())) }
        }
        "?"
    }
}

/// Renders a line for each unknown name of a form. `href` returns the link to the page with a name in place of an
/// unknown one.
pub fn unknown_names(unknown: &[UnknownName<'_>], href: impl Fn(&str, &str) -> String) -> Markup {
    html! {
        @if !unknown.is_empty() {
            ul .notices #unknown {
                @for UnknownName { name, similar } in unknown {
                    li {
                        "No segment is called “" (names::name(name)) "”. "
                        @if similar.is_empty() { "It counts as empty." }
                        @else { (did_you_mean(similar, |other| href(name, other))) }
                    }
                }
            }
        }
    }
}
