//! Form fields for names of segments.

use std::borrow::Cow;

use maud::{Markup, html};

use super::names::visible;
use crate::domain::SegmentName;
use crate::estimator::overlap::Overlaps;

/// Returns how many fields a list of `names` has: one more for the next name, and at least `min`. Surplus names are kept
/// for correction, if they are not far too many.
pub fn number_of_fields(names: usize, min: usize) -> usize {
    const MAX_FIELDS: usize = 2 * Overlaps::MAX_SEGMENTS;
    (names + 1).clamp(min, Overlaps::MAX_SEGMENTS).max(names.min(MAX_FIELDS))
}

/// Renders a field for a name. [`suggestions`] must be on the page.
pub fn segment_field(id: &str, label: &str, parameter: &str, name: &str) -> Markup {
    html! {
        div {
            label for=(id) { (label) }
            input id=(id) type="text" name=(parameter) list="names" autocomplete="off" spellcheck="false"
                maxlength=(SegmentName::MAX_BYTES) value=(name);
        }
    }
}

/// Renders the names that the fields suggest.
pub fn suggestions(names: &[String]) -> Markup {
    html! { datalist #names { @for name in names { option value=(name) label=[escaped_label(name)] {} } } }
}

/// Returns the label of a suggestion whose name has invisible characters. Its value must be the name itself.
fn escaped_label(name: &str) -> Option<Cow<'_, str>> {
    Some(visible(name)).filter(|shown| shown != name)
}
