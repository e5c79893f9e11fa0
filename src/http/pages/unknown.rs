//! The page of a name that no segment has.

use maud::{Markup, html};

use super::layout::{self, Counts, Page, Refresh};
use super::links::{BasePath, with_query};
use super::names;
use super::similar::did_you_mean;
use crate::domain::SegmentName;

/// Renders the page of `name`, with names like it.
pub fn page(name: &str, similar: &[SegmentName<'_>]) -> Markup {
    let main = html! {
        p .back { a href="../" { "← All segments" } }
        h1 { "No segment called “" (names::name(name)) "”" }
        p .lead #unknown {
            @match similar {
                [] => { "It has no users and no history." }
                similar => {
                    (did_you_mean(similar, |other| with_query("segment", [("name", other)])))
                }
            }
        }
    };
    layout::page(BasePath::Pages, Page::Segment, name, Refresh::Never, Counts::None, &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_suggests_names() {
        let similar = ["news", "a & b"].map(|name| SegmentName::parse(name.to_owned()).unwrap());
        let page = page("nwes", &similar).into_string();
        assert!(page.contains("No segment called “<bdi>nwes</bdi>”"), "{page}");
        let links = "<a href=\"segment?name=news\"><bdi>news</bdi></a> or <a href=\"segment?name=a%20%26%20b\">";
        assert!(page.contains(&format!("Did you mean {links}")), "{page}");
    }
}
