//! What surrounds every page: its head, the way to the others, and of when its figures are.

use maud::{DOCTYPE, Markup, html};

use super::format;
use super::links::BasePath;
use super::names::visible;
use crate::domain::{Timestamp, Window};

/// How often the script asks for a page again, in seconds.
pub(super) const REFRESH_SECONDS: u64 = 15;

/// The pages that the head of each leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// All segments.
    List,
    /// A segment.
    Segment,
    /// Who is in several.
    Overlap,
    /// None of them.
    Error,
}

/// Whether the script asks for the page again now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Every [`REFRESH_SECONDS`].
    Periodic,
    /// The content would not change, or would cost too much.
    Never,
}

/// A page with `main` in it, whose title is `title`.
pub fn page(place: BasePath, page: Page, title: &str, refresh: Refresh, main: &Markup) -> Markup {
    let (root, pages) = (place.root(), place.pages());
    let current = |is: bool| is.then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (visible(title)) " – Segment estimator" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href={ (pages) "icon.svg" } type="image/svg+xml";
                link rel="stylesheet" href={ (pages) "style.css" };
                script src={ (pages) "refresh.js" } defer {}
            }
            body data-refresh=[(refresh == Refresh::Periodic).then_some(REFRESH_SECONDS)] {
                a .skip href="#main" { "Skip to the content" }
                header {
                    a .brand href=(root) { img src={ (pages) "icon.svg" } alt="" width="24" height="24"; "Segment estimator" }
                    nav aria-label="Pages" {
                        ul {
                            li { a href=(root) aria-current=[current(page == Page::List)] { "Segments" } }
                            li { a href={ (pages) "overlap" } aria-current=[current(page == Page::Overlap)] { "Overlap" } }
                            li { a href={ (root) "docs" } { "API" } }
                        }
                    }
                }
                // What the script says when it can't reach the service.
                div #connection role="status" {}
                main #main tabindex="-1" { (main) }
                footer { p { "Counts are exact as of the time shown. All times are UTC." } }
            }
        }
    }
}

/// Of when the figures of a page are, and over which window unless that is said already.
pub fn as_of(now: Timestamp, window: Option<Window>) -> Markup {
    html! {
        p .as-of #as-of {
            "As of " time datetime=(format::machine(now)) { (format::date(now)) ", " (format::second(now)) " UTC" }
            @if let Some(window) = window { ", over the last " (format::span(window.duration())) }
        }
    }
}
