//! Links to the windows that a page can count over.

use std::time::Duration;

use maud::{Markup, html};

use crate::domain::Window;
use crate::http::format;

/// Renders links to the configured window and to shorter ones. `href` returns the link to a window; `None` is the
/// configured one.
pub fn windows(current: Window, configured: Window, href: impl Fn(Option<Window>) -> String) -> Markup {
    let shorter = [7 * 86_400, 86_400, 3_600].map(|seconds| Window::new(Duration::from_secs(seconds)));
    let shorter = shorter.into_iter().flatten().filter(|window| *window < configured);
    html! {
        nav .choice aria-label="Window" {
            span aria-hidden="true" { "Seen in the last" }
            ul .choices {
                @for window in [configured].into_iter().chain(shorter) {
                    li {
                        a href=(href(unless_configured(window, configured))) aria-current=[(window == current).then_some("true")] {
                            (format::span(window.duration()))
                        }
                    }
                }
            }
        }
    }
}

/// Returns `window` unless it is the configured one, which links and requests omit.
pub fn unless_configured(window: Window, configured: Window) -> Option<Window> {
    (window != configured).then_some(window)
}
