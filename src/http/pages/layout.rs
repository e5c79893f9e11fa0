//! The layout that all pages share.

use maud::{DOCTYPE, Markup, html};

use super::links::BasePath;
use super::names::visible;
use crate::domain::{Estimate, Timestamp, Window};
use crate::http::format;

/// Interval of the refresh script.
pub const REFRESH_SECONDS: u64 = 15;
/// The same for a hidden page, such as a tab in the background. Browsers run the timers of hidden pages once a minute.
const HIDDEN_REFRESH_SECONDS: u64 = 60;

/// Entries of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// All segments.
    List,
    /// A segment.
    Segment,
    /// A comparison.
    Overlap,
    /// An audience.
    Audience,
    /// The API's documentation.
    Docs,
    /// An error page.
    Error,
}

/// Whether the script refreshes the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Every [`REFRESH_SECONDS`] while the page is visible.
    Periodic,
    /// Also every [`HIDDEN_REFRESH_SECONDS`] while the page is hidden: its title has a number.
    PeriodicAlsoHidden,
    /// The content would not change, or would cost too much.
    Never,
}

/// The counts that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// There are none.
    None,
    /// All of them are exact.
    Exact,
    /// Some of them are estimates.
    Estimated,
}

impl Counts {
    /// Returns the kind of these counts.
    pub fn of(counts: impl IntoIterator<Item = Estimate>) -> Self {
        if counts.into_iter().all(Estimate::is_exact) { Self::Exact } else { Self::Estimated }
    }
}

/// Renders the page in `base` with the content `main` and the scripts of the pages.
pub fn page(base: BasePath, page: Page, title: &str, refresh: Refresh, counts: Counts, main: &Markup) -> Markup {
    let scripts = html! { script src={ (base.pages()) "pages.js" } type="module" {} };
    page_with_files(base, page, title, &scripts, refresh, counts, main)
}

/// Renders the page in `base` with the content `main`. Its head has `files` after the shared style sheet.
pub fn page_with_files(
    base: BasePath,
    page: Page,
    title: &str,
    files: &Markup,
    refresh: Refresh,
    counts: Counts,
    main: &Markup,
) -> Markup {
    let (root, pages) = (base.root(), base.pages());
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
                (files)
            }
            body data-refresh=[(refresh != Refresh::Never).then_some(REFRESH_SECONDS)]
                data-refresh-hidden=[(refresh == Refresh::PeriodicAlsoHidden).then_some(HIDDEN_REFRESH_SECONDS)] {
                a .skip href="#main" { "Skip to content" }
                header {
                    a .brand href=(root) { img src={ (pages) "icon.svg" } alt="" width="24" height="24"; "Segment estimator" }
                    nav aria-label="Pages" {
                        ul {
                            li { a href=(root) aria-current=[current(page == Page::List)] { "Segments" } }
                            li { a href={ (pages) "overlap" } aria-current=[current(page == Page::Overlap)] { "Overlap" } }
                            li { a href={ (pages) "audience" } aria-current=[current(page == Page::Audience)] { "Audience" } }
                            li { a href={ (root) "docs" } aria-current=[current(page == Page::Docs)] { "API" } }
                        }
                    }
                }
                // Filled by the script if there are no newer numbers.
                div #connection role="status" {}
                main #main tabindex="-1" { (main) }
                footer {
                    p {
                        @match counts {
                            Counts::None => { "All times are UTC." }
                            Counts::Exact => { "Counts are exact as of the time shown. All times are UTC." }
                            Counts::Estimated => { "Counts are as of the time shown, and exact unless marked ≈. All times are UTC." }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the time of the numbers, and their window unless the page shows it elsewhere.
pub fn as_of(now: Timestamp, window: Option<Window>) -> Markup {
    html! {
        p .as-of #as-of {
            @if let Some(window) = window { "Users seen in the " (format::last(window.duration())) " · updated " } @else { "Updated " }
            time datetime=(format::machine(now)) { (format::date(now)) ", " (format::second(now)) " UTC" }
        }
    }
}
