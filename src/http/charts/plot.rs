//! Charts as SVG: bars and lines.
//!
//! A chart consists of the labels of its counts and the plot beside them. The plot uses the available width: positions
//! in it are percentages, so that text and strokes keep their size. (The pages' policy forbids style attributes.) Each
//! bar and data point has a `<title>`, which browsers show as a tooltip. A table beside the chart has the same numbers
//! for everyone else.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::{Counts, Tick};

/// Bar of a histogram.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its height.
    pub count: u64,
    /// Its tooltip.
    pub title: String,
}

/// Point of a line.
#[derive(Debug, Clone)]
pub struct DataPoint {
    /// `None` interrupts the line.
    pub count: Option<u64>,
    /// Position on the time axis, from 0 to 1.
    pub at: f64,
    /// Its tooltip.
    pub title: String,
}

/// Everything in a chart but its bars or line.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Id of the HTML element.
    pub id: &'a str,
    /// Description for screen readers.
    pub label: String,
    /// Label of the horizontal axis, with its unit.
    pub x_label: &'a str,
    pub x_ticks: Vec<Tick>,
}

/// Top of the plot, in pixels.
const TOP: f64 = 10.0;
/// Base line of the plot, in pixels.
const BASE: f64 = 210.0;
/// Height of the chart, in pixels.
const HEIGHT: f64 = 234.0;
/// Width of the labels of the counts, in pixels.
const LABEL_WIDTH: f64 = 44.0;
/// Gap between bars, as a fraction of the bar.
const GAP: f64 = 0.12;

/// Renders bars side by side. The ticks of the horizontal axis are at their bounds.
pub fn bars(frame: &Frame<'_>, bars: &[Bar]) -> Markup {
    let axis = Counts::up_to(bars.iter().map(|bar| bar.count).max().unwrap_or_default());
    let width = 1.0 / bars.len().max(1) as f64;
    let marks = html! {
        @for (index, bar) in (0_u32..).zip(bars) {
            @let height = axis.position(bar.count) * (BASE - TOP);
            // A single user is visible, however high the other bars are.
            @let height = if bar.count > 0 { height.max(1.5) } else { 0.0 };
            g .bar {
                title { (bar.title) }
                rect .hit x=(percent(f64::from(index) * width)) width=(percent(width)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
                rect .fill x=(percent((f64::from(index) + GAP / 2.0) * width)) width=(percent((1.0 - GAP) * width))
                    y=(pixels(BASE - height)) height=(pixels(height)) {}
            }
        }
    };
    chart(frame, &axis, &marks)
}

/// Renders a line over time.
pub fn line(frame: &Frame<'_>, data: &[DataPoint]) -> Markup {
    let axis = Counts::up_to(data.iter().filter_map(|point| point.count).max().unwrap_or_default());
    let place =
        |point: &DataPoint| point.count.map(|count| (point.at * 1000.0, (1.0 - axis.position(count)) * (BASE - TOP)));
    let points: Vec<_> = data.iter().map(place).collect();
    let drawn = html! {
        @for (from, to) in gaps(data) {
            rect .gap x=(percent(from)) width=(percent(to - from)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
        }
        svg x="0" y=(pixels(TOP)) width="100%" height=(pixels(BASE - TOP)) viewBox=(format!("0 0 1000 {}", BASE - TOP))
            preserveAspectRatio="none" {
            path .area d=(area(&points)) {}
            path .line d=(path(&points)) vector-effect="non-scaling-stroke" {}
        }
        @for (index, point) in data.iter().enumerate() {
            // The hover area reaches half the way to the neighbours.
            @let before = index.checked_sub(1).map_or(0.0, |before| (data[before].at + point.at) / 2.0);
            @let after = data.get(index + 1).map_or(1.0, |after| (point.at + after.at) / 2.0);
            g .point {
                title { (point.title) }
                rect .hit x=(percent(before)) width=(percent(after - before)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
                @if let Some(count) = point.count {
                    circle cx=(percent(point.at)) cy=(pixels(BASE - axis.position(count) * (BASE - TOP))) r="4" {}
                }
            }
        }
    };
    chart(frame, &axis, &drawn)
}

/// Renders the axes around `plot`.
fn chart(frame: &Frame<'_>, axis: &Counts, plot: &Markup) -> Markup {
    let Frame { id, label, x_label, x_ticks } = frame;
    // Narrow screens show only every second or third label.
    let every = x_ticks.len().div_ceil(4).max(1);
    html! {
        figure .chart id=(id) {
            div .graph role="img" aria-label=(label) {
                svg .counts width=(LABEL_WIDTH) height=(HEIGHT) {
                    @for tick in &axis.ticks {
                        text x=(LABEL_WIDTH - 8.0) y=(pixels(height_of(tick) + 4.0)) text-anchor="end" { (tick.label) }
                    }
                }
                svg .plot width="100%" height=(HEIGHT) {
                    @for tick in &axis.ticks {
                        @let y = pixels(height_of(tick));
                        line .grid .base[tick.at == 0.0] x1="0" x2="100%" y1=(y) y2=(y) {}
                    }
                    @for tick in x_ticks {
                        line .grid x1=(percent(tick.at)) x2=(percent(tick.at)) y1=(pixels(BASE)) y2=(pixels(BASE + 4.0)) {}
                    }
                    (plot)
                    @for (index, tick) in x_ticks.iter().rev().enumerate() {
                        text .minor[!index.is_multiple_of(every)] x=(percent(tick.at)) y=(pixels(HEIGHT - 6.0))
                            text-anchor=(anchor(tick.at)) { (tick.label) }
                    }
                }
            }
            figcaption { span .up { "Users" } span { (x_label) } }
        }
    }
}

fn height_of(tick: &Tick) -> f64 {
    BASE - tick.at * (BASE - TOP)
}

/// Keeps the label at the right end within the margin of a narrow screen. At the left end, the labels of the counts leave
/// room for half of it.
fn anchor(at: f64) -> &'static str {
    if at > 0.96 { "end" } else { "middle" }
}

/// Returns the gaps between counts, as their positions.
fn gaps(data: &[DataPoint]) -> Vec<(f64, f64)> {
    let known: Vec<_> = data.iter().enumerate().filter(|(_, point)| point.count.is_some()).collect();
    let pairs = known.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1);
    pairs.map(|pair| (pair[0].1.at, pair[1].1.at)).collect()
}

/// Returns an SVG path through `points`, interrupted where one is missing. A single point becomes a line of length 0,
/// whose round caps form a dot.
fn path(points: &[Option<(f64, f64)>]) -> String {
    let mut path = String::new();
    for run in runs(points) {
        for (index, (x, y)) in run.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        if run.len() == 1 {
            path.push_str("h0");
        }
    }
    path
}

/// Returns the area between that path and the base line.
fn area(points: &[Option<(f64, f64)>]) -> String {
    let mut path = String::new();
    let base = BASE - TOP;
    for run in runs(points) {
        let (first, last) = (run[0].0, run[run.len() - 1].0);
        let _ = write!(path, "M{first:.1} {base}");
        for (x, y) in &run {
            let _ = write!(path, "L{x:.1} {y:.1}");
        }
        let _ = write!(path, "L{last:.1} {base}Z");
    }
    path
}

/// Splits `points` where one is missing.
pub fn runs<T: Copy>(points: &[Option<T>]) -> impl Iterator<Item = Vec<T>> {
    let runs = points.split(Option::is_none).filter(|run| !run.is_empty());
    runs.map(|run| run.iter().flatten().copied().collect())
}

pub fn percent(part: f64) -> String {
    format!("{:.3}%", part * 100.0)
}

fn pixels(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame<'static> {
        Frame { id: "it", label: "What it shows".into(), x_label: "days ago", x_ticks: Vec::new() }
    }

    fn bar(count: u64) -> Bar {
        Bar { count, title: format!("{count} <users>") }
    }

    #[test]
    fn bars_have_proportional_heights_and_equal_widths() {
        let svg = bars(&frame(), &[bar(0), bar(50), bar(100), bar(25)]).into_string();
        let fills: Vec<_> = svg.split("class=\"fill\"").skip(1).map(|rect| rect.split('>').next().unwrap()).collect();
        let heights = ["0.0", "100.0", "200.0", "50.0"];
        assert_eq!(fills.len(), heights.len());
        for (at, (fill, height)) in fills.iter().zip(heights).enumerate() {
            assert!(fill.contains(&format!(" height=\"{height}\"")), "{fill}");
            let x = (at as f64 + 0.06) * 25.0;
            assert!(fill.contains(&format!(" x=\"{x:.3}%\" width=\"22.000%\"")), "{fill}");
        }
        assert!(svg.contains("<title>50 &lt;users&gt;</title>"), "{svg}");
        assert!(svg.contains("role=\"img\" aria-label=\"What it shows\""), "{svg}");
    }

    #[test]
    fn bar_of_one_user_is_visible_beside_millions() {
        let svg = bars(&frame(), &[bar(1), bar(4_000_000)]).into_string();
        assert!(svg.contains(" height=\"1.5\""), "{svg}");
    }

    #[test]
    fn line_has_gaps_where_counts_are_missing() {
        let counts = [Some(10), Some(20), None, Some(5), None, None];
        let data: Vec<_> = (counts.iter().enumerate())
            .map(|(at, count)| DataPoint { count: *count, at: at as f64 / 5.0, title: format!("{count:?}") })
            .collect();
        let svg = line(&frame(), &data).into_string();
        assert!(svg.contains("d=\"M0.0 100.0L200.0 0.0M600.0 150.0h0\""), "{svg}");
        assert_eq!(svg.matches("class=\"gap\"").count(), 1, "the end is no gap: {svg}");
        assert!(svg.contains("class=\"gap\" x=\"20.000%\" width=\"40.000%\""), "{svg}");
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"hit\"").count()), (3, 6));
    }

    #[test]
    fn label_at_the_left_end_is_centred_like_the_others() {
        let ticks = [0.0, 0.5, 1.0].map(|at| Tick { at, label: "9 Nov".into() });
        let svg = bars(&Frame { x_ticks: ticks.into(), ..frame() }, &[bar(1)]).into_string();
        let (_, plot) = svg.split_once("class=\"plot\"").unwrap();
        let anchors = plot.split("text-anchor=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert_eq!(anchors.collect::<Vec<_>>(), ["end", "middle", "middle"], "from the right: {plot}");
    }

    #[test]
    fn charts_without_data_are_rendered() {
        assert!(bars(&frame(), &[]).into_string().contains("<svg"));
        assert!(line(&frame(), &[]).into_string().contains("<svg"));
    }
}
