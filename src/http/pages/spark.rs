//! Small charts for tables, as SVG: sparklines and meters.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::domain::Estimate;
use crate::http::charts::path::runs;
use crate::http::charts::plot::percent;
use crate::http::format;

/// Renders a sparkline: a small line without axes. Its lowest count is at the bottom, unless it is above four fifths of
/// the highest: a nearly constant count looks constant.
pub fn spark(label: &str, counts: &[Option<Estimate>]) -> Markup {
    // In half pixels: as precise as needed, and without decimals.
    const WIDTH: f64 = 240.0;
    const TALL: f64 = 48.0;
    const MARGIN: f64 = 6.0;
    let known = || counts.iter().flatten().map(|count| count.count());
    let (Some(lowest), Some(highest)) = (known().min(), known().max()) else {
        return html! { span .muted title="No history yet" { "–" } };
    };
    let bottom = (lowest as f64).min(highest as f64 * 0.8);
    let range = (highest as f64 - bottom).max(1.0);
    let step = (WIDTH - 2.0 * MARGIN) / counts.len().saturating_sub(1).max(1) as f64;
    let place = |at: usize, count: u64| {
        let height = (count as f64 - bottom) / range * (TALL - 2.0 * MARGIN);
        ((MARGIN + at as f64 * step).round() as i64, (TALL - MARGIN - height).round() as i64)
    };
    let points: Vec<_> =
        counts.iter().enumerate().map(|(at, count)| count.map(|count| place(at, count.count()))).collect();
    let last = points.iter().rev().flatten().next();
    html! {
        svg .spark role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {TALL}")) width=(WIDTH / 2.0) height=(TALL / 2.0) {
            title { (label) }
            path .line d=(relative_path(&points)) {}
            @if let Some((x, y)) = last { circle cx=(x) cy=(y) r="4" {} }
        }
    }
}

/// Renders `part` of `whole` as a bar. The numbers are beside it.
pub fn meter(part: u64, whole: u64) -> Markup {
    html! {
        svg .meter aria-hidden="true" width="100%" height="3" {
            rect .track width="100%" height="3" rx="1" {}
            rect .fill width=(percent(part as f64 / whole.max(1) as f64)) height="3" rx="1" {}
        }
    }
}

/// Returns a path through `points`, interrupted where one is missing: the distances have fewer digits than their positions.
fn relative_path(points: &[Option<(i64, i64)>]) -> String {
    let mut path = String::new();
    for run in runs(points) {
        let _ = write!(path, "M{} {}", run[0].0, run[0].1);
        path.push_str(if run.len() == 1 { "h0" } else { "l" });
        for (index, pair) in run.windows(2).enumerate() {
            let (x, y) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
            // A minus sign separates numbers, too.
            let _ = write!(path, "{}{x}{}{y}", if index == 0 { "" } else { " " }, if y < 0 { "" } else { " " });
        }
    }
    path
}

/// Returns the description of a sparkline for screen readers.
pub fn spark_label(counts: &[Option<Estimate>], span: &str) -> String {
    let known = || counts.iter().flatten().copied();
    let (Some(first), Some(last)) = (known().next(), known().next_back()) else { return "No history yet".to_owned() };
    let by_count = |count: &Estimate| count.count();
    let extremes = [known().min_by_key(by_count), known().max_by_key(by_count)];
    let extremes = extremes.map(|count| format::users(count.unwrap_or_default()));
    let change = format::change(first, last);
    format!(
        "{span}: from {} to {}, {change}, between {}",
        format::users(first),
        format::users(last),
        extremes.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spark_shows_a_dash_without_history_and_its_range_with_it() {
        assert!(spark("none", &[None, None]).into_string().contains('–'));
        let counts = [Some(1_000.into()), None, Some(2_000.into())];
        let svg = spark(&spark_label(&counts, "14 days"), &counts).into_string();
        assert!(
            svg.contains("aria-label=\"14 days: from 1,000 to 2,000, up 1,000 (+100.0%), between 1,000 and 2,000\""),
            "{svg}"
        );
        assert!(svg.contains("d=\"M6 42h0M234 6h0\""), "{svg}");
    }

    #[test]
    fn spark_of_a_full_history_is_short() {
        let counts: Vec<_> = (0..42_u64).map(|at| Some((1_000 + at * 7_919 % 400).into())).collect();
        let svg = spark("it", &counts).into_string();
        let path = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(path.starts_with("M6 42l6-") && path.len() < 300, "{path}");
    }
}
