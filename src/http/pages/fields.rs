//! Form fields for names of segments.

use std::borrow::Cow;

use maud::{Markup, html};

use super::names::visible;
use crate::domain::SegmentName;

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
