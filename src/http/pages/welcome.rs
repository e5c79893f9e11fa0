//! The content of the list's page in a service without visits.

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::layout;
use crate::domain::{Timestamp, Window};
use crate::http::format;

/// Renders instructions for a service without visits.
pub fn welcome(now: Timestamp, window: Window, base_url: &BaseUrl) -> Markup {
    html! {
        h1 { "No segments yet" }
        p .lead {
            "No user was seen in the " (format::last(window.duration()))
            ". Send a visit, and its segment appears here."
        }
        (layout::as_of(now, None))
        section #first-visit {
            h2 { "Send the first visit" }
            pre tabindex="0" { code { (base_url.post_visit("u104010", "sports")) } }
            p .note { "Paste it into a terminal. The answer is " code { "204 No Content" } " once the visit is stored." }
        }
        section {
            h2 { "Or load demo data" }
            pre tabindex="0" { code { "segment-estimator demo" } }
            p .note {
                "Fills an empty data set with 300 segments and two weeks of visits. Run it with the settings of this service. From a checkout: "
                code { "make run ARGS=demo" } "."
            }
        }
    }
}
