//! Charts on a page.

use maud::{Markup, html};

use crate::http::charts::Chart;
use crate::http::charts::plot::{self, Canvas, LABEL_WIDTH};

/// Renders `chart` with the reading of its chief mark. `charts.js` moves the reading from mark to mark. `id` names the
/// chart in its links as well. `picture` and `csv` are the paths of the API for the chart as a picture and for its
/// table. A table follows.
pub fn figure(id: &str, chart: &Chart, picture: &str, csv: &str) -> Markup {
    let counts = chart.counts();
    let height = Canvas::Page.height();
    let (chief, reading) = chart.chief_reading();
    html! {
        figure .chart id=(id) {
            div .graph role="img" aria-label={ (chart.label) " The table below has the numbers." } data-chief=(chief) {
                svg .counts width=(LABEL_WIDTH) height=(height) { (plot::count_labels(&counts, Canvas::Page)) }
                svg .plot width="100%" height=(height) { (plot::plot(chart, &counts, Canvas::Page)) }
            }
            figcaption {
                div .axes { span .up { "Users" } span { (chart.x_label) } }
                p .reading { (reading) }
                p .picture { a href={ "../" (picture) } { "Chart of the " (id) " as SVG" } }
                p .download { a href={ "../" (csv) } { "Download CSV of the " (id) } }
            }
        }
    }
}
