//! Links that download the tables of the pages.

use maud::{Markup, html};

use super::links::BasePath;

/// Renders the link to `call` of the API, a path with a query or without, as CSV. `what` completes “Download CSV
/// of”.
pub fn csv_link(base: BasePath, call: &str, what: &str) -> Markup {
    let separator = if call.contains('?') { '&' } else { '?' };
    html! {
        p .download {
            a href={ (base.root()) (call) (separator) "format=csv" } { "Download CSV of " (what) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_link_keeps_the_query() {
        for (call, expected) in [("counts?segment=a%20b", "counts?segment=a%20b&amp;"), ("segments", "segments?")] {
            let link = csv_link(BasePath::Pages, call, "segments").into_string();
            assert!(
                link.contains(&format!("<a href=\"../{expected}format=csv\">Download CSV of segments</a>")),
                "{link}"
            );
        }
    }
}
