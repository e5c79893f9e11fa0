//! The section of a segment's page that shows when its users were last seen.

use maud::{Markup, html};

use super::links::{segment_call, window_parameter};
use super::windows::unless_configured;
use super::{chart, estimate};
use crate::domain::Window;
use crate::estimator::Histogram;
use crate::http::charts::histogram as charts;
use crate::http::format;

/// Renders the histogram of the segment `name` and of `window`. Users expire by the `configured` window, whichever is
/// shown.
pub fn histogram(name: &str, histogram: &Histogram, window: Window, configured: Window) -> Markup {
    let unit = match charts::unit(window, histogram.buckets.len()) {
        "days" => "Days",
        "hours" => "Hours",
        "minutes" => "Minutes",
        _ => "Time",
    };
    html! {
        section aria-labelledby="last-seen" {
            div .head {
                h2 #last-seen { (unit) " since last visit" }
                p .note {
                    "Each user is counted once, at the most recent visit. This is not daily activity. Users drop out "
                    (format::span(configured.duration())) " after their last visit"
                    @if window == configured { ", so the bars on the left leave next." }
                    @else if histogram.count.count() == 0 { "." }
                    @else {
                        ". In the CSV, leave_from and leave_to are when they leave the "
                        (format::last(window.duration())) "."
                    }
                }
            }
            div .body {
                @if histogram.count.count() > 0 { (bars(name, histogram, window, configured)) }
                @else if window < configured {
                    p .nothing { "No user was seen in the " (format::last(window.duration())) "." }
                }
                @else { p .nothing { "No users in this segment." } }
            }
        }
    }
}

/// Renders the histogram as a chart and a table.
fn bars(name: &str, histogram: &Histogram, window: Window, configured: Window) -> Markup {
    let lifetime = configured.duration();
    let buckets = histogram.buckets.len().to_string();
    let shorter = window_parameter(unless_configured(window, configured));
    let call = |resource: &str, format: &str| {
        let parameters = [("buckets", buckets.as_str()), ("window", &shorter), ("format", format)];
        segment_call(name, resource, parameters)
    };
    let (picture, csv) = (call("histogram.svg", ""), call("histogram", "csv"));
    html! {
        (chart::figure("histogram", &charts::chart(histogram, window, configured), &picture, &csv))
        details #histogram-figures {
            summary { "Show as table" }
            table #histogram-table {
                caption { "Users by when they were last seen, in UTC" }
                thead {
                    tr {
                        th scope="col" { "Last seen from" }
                        th scope="col" { "Drop out from" }
                        th .number scope="col" { "Users" }
                        th .number scope="col" { "Share" }
                    }
                }
                tbody {
                    @for bucket in histogram.buckets.iter().rev() {
                        tr {
                            th scope="row" { (format::marked(bucket.from)) }
                            td { (format::marked(bucket.from + lifetime)) }
                            td .number { (estimate::users(bucket.count)) }
                            td .number { (format::share_of(bucket.count, histogram.count)) }
                        }
                    }
                }
            }
        }
    }
}
