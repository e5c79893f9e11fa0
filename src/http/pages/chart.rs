//! Charts as SVG: bars, a line, and the small line of a row.
//!
//! A chart has two parts side by side, the labels of its counts and the plot. The plot is as wide as the page lets it be: all in it
//! stands at percentages, so that text and strokes keep their size. (A style attribute would be against the pages' policy.) What a mark means is
//! said by its `<title>`, which browsers show as a tooltip; a table beside the chart says it to everybody else.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::{Counts, Tick};
use super::format;

/// A bar of a histogram.
#[derive(Debug, Clone)]
pub struct Bar {
    /// How high it is.
    pub count: u64,
    /// What it means.
    pub title: String,
}

/// A point of a line, and what it means.
#[derive(Debug, Clone)]
pub struct DataPoint {
    /// Its count, if there is one.
    pub count: Option<u64>,
    /// From the begin of the time axis, 0, to its end, 1.
    pub at: f64,
    /// What it means.
    pub title: String,
}

/// What a chart has besides its marks.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// Its id in the page.
    pub id: &'a str,
    /// What it shows, in a sentence, for those who don't see it.
    pub label: String,
    /// What the horizontal axis tells, with its unit.
    pub across: &'a str,
    /// The ticks of the horizontal axis.
    pub ticks: Vec<Tick>,
}

/// From the top to the plot, to the base line, and to the end, in pixels.
const TOP: f64 = 10.0;
const BASE: f64 = 210.0;
const HEIGHT: f64 = 234.0;
/// How wide the labels of the counts are.
const LABELS: f64 = 44.0;
/// Of the gap between bars, as a part of a bar.
const GAP: f64 = 0.12;

/// Bars side by side, over an axis whose ticks are at their bounds.
pub fn bars(surroundings: &Surroundings<'_>, bars: &[Bar]) -> Markup {
    let axis = Counts::up_to(bars.iter().map(|bar| bar.count).max().unwrap_or_default());
    let width = 1.0 / bars.len().max(1) as f64;
    let marks = html! {
        @for (at, bar) in (0_u32..).zip(bars) {
            @let height = axis.place(bar.count) * (BASE - TOP);
            // Somebody is more than nobody, however many the others are.
            @let height = if bar.count > 0 { height.max(1.5) } else { 0.0 };
            g .bar {
                title { (bar.title) }
                rect .hit x=(percent(f64::from(at) * width)) width=(percent(width)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
                rect .fill x=(percent((f64::from(at) + GAP / 2.0) * width)) width=(percent((1.0 - GAP) * width))
                    y=(pixels(BASE - height)) height=(pixels(height)) {}
            }
        }
    };
    chart(surroundings, &axis, &marks)
}

/// A line over time. Where there is no count, there is no line.
pub fn line(surroundings: &Surroundings<'_>, marks: &[DataPoint]) -> Markup {
    let axis = Counts::up_to(marks.iter().filter_map(|mark| mark.count).max().unwrap_or_default());
    let place = |mark: &DataPoint| mark.count.map(|count| (mark.at * 1000.0, (1.0 - axis.place(count)) * (BASE - TOP)));
    let points: Vec<_> = marks.iter().map(place).collect();
    let drawn = html! {
        @for (from, to) in gaps(marks) {
            rect .gap x=(percent(from)) width=(percent(to - from)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
        }
        svg x="0" y=(pixels(TOP)) width="100%" height=(pixels(BASE - TOP)) viewBox=(format!("0 0 1000 {}", BASE - TOP))
            preserveAspectRatio="none" {
            path .area d=(area(&points)) {}
            path .line d=(path(&points)) vector-effect="non-scaling-stroke" {}
        }
        @for (at, mark) in marks.iter().enumerate() {
            // Each has the space up to half the way to its neighbours.
            @let before = at.checked_sub(1).map_or(0.0, |before| (marks[before].at + mark.at) / 2.0);
            @let after = marks.get(at + 1).map_or(1.0, |after| (mark.at + after.at) / 2.0);
            g .point {
                title { (mark.title) }
                rect .hit x=(percent(before)) width=(percent(after - before)) y=(pixels(TOP)) height=(pixels(BASE - TOP)) {}
                @if let Some(count) = mark.count {
                    circle cx=(percent(mark.at)) cy=(pixels(BASE - axis.place(count) * (BASE - TOP))) r="4" {}
                }
            }
        }
    };
    chart(surroundings, &axis, &drawn)
}

/// The line of a row, without axes. It isn't over zero: the lowest of its counts is at the bottom, unless that is above four fifths
/// of the highest, so that what hardly changes looks so.
pub fn spark(label: &str, counts: &[Option<u64>]) -> Markup {
    const WIDTH: f64 = 120.0;
    const TALL: f64 = 28.0;
    let known = || counts.iter().flatten().copied();
    let (Some(lowest), Some(highest)) = (known().min(), known().max()) else {
        return html! { span .muted title="No history yet" { "–" } };
    };
    let bottom = (lowest as f64).min(highest as f64 * 0.8);
    let range = (highest as f64 - bottom).max(1.0);
    let step = (WIDTH - 6.0) / counts.len().saturating_sub(1).max(1) as f64;
    let place =
        |at: usize, count: u64| (3.0 + at as f64 * step, TALL - 3.0 - (count as f64 - bottom) / range * (TALL - 6.0));
    let points: Vec<_> = counts.iter().enumerate().map(|(at, count)| count.map(|count| place(at, count))).collect();
    let last = points.iter().rev().flatten().next();
    html! {
        svg .spark role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {TALL}")) width=(WIDTH) height=(TALL) {
            title { (label) }
            path .line d=(path(&points)) {}
            @if let Some((x, y)) = last { circle cx=(pixels(*x)) cy=(pixels(*y)) r="2" {} }
        }
    }
}

/// How much `part` is of `whole`, as a bar. What stands beside it says it in figures.
pub fn meter(part: u64, whole: u64) -> Markup {
    html! {
        svg .meter aria-hidden="true" width="100%" height="8" {
            rect .track width="100%" height="8" rx="2" {}
            rect .fill width=(percent(part as f64 / whole.max(1) as f64)) height="8" rx="2" {}
        }
    }
}

/// The labels of the counts, the lines behind the plot, the plot, and the axis below it.
fn chart(surroundings: &Surroundings<'_>, axis: &Counts, marks: &Markup) -> Markup {
    let Surroundings { id, label, across, ticks } = surroundings;
    // A telephone has room for every second or third one.
    let every = ticks.len().div_ceil(4).max(1);
    html! {
        figure .chart id=(id) {
            div .graph role="img" aria-label=(label) {
                svg .counts width=(LABELS) height=(HEIGHT) {
                    @for tick in &axis.ticks {
                        text x=(LABELS - 8.0) y=(pixels(height_of(tick) + 4.0)) text-anchor="end" { (tick.label) }
                    }
                }
                svg .plot width="100%" height=(HEIGHT) {
                    @for tick in &axis.ticks {
                        @let y = pixels(height_of(tick));
                        line .grid .base[tick.at == 0.0] x1="0" x2="100%" y1=(y) y2=(y) {}
                    }
                    @for tick in ticks {
                        line .grid x1=(percent(tick.at)) x2=(percent(tick.at)) y1=(pixels(BASE)) y2=(pixels(BASE + 4.0)) {}
                    }
                    (marks)
                    @for (at, tick) in ticks.iter().rev().enumerate() {
                        text .minor[!at.is_multiple_of(every)] x=(percent(tick.at)) y=(pixels(HEIGHT - 6.0))
                            text-anchor=(anchor(tick.at)) { (tick.label) }
                    }
                }
            }
            figcaption { span .up { "Users" } span { (across) } }
        }
    }
}

fn height_of(tick: &Tick) -> f64 {
    BASE - tick.at * (BASE - TOP)
}

/// A label at an end of the axis must not leave the chart by more than the margin of a telephone, where half a date takes 7 % of it.
fn anchor(at: f64) -> &'static str {
    match at {
        at if at < 0.04 => "start",
        at if at > 0.97 => "end",
        _ => "middle",
    }
}

/// Where counts are missing between others, from the last before to the first after.
fn gaps(marks: &[DataPoint]) -> Vec<(f64, f64)> {
    let known: Vec<_> = marks.iter().enumerate().filter(|(_, mark)| mark.count.is_some()).collect();
    let pairs = known.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1);
    pairs.map(|pair| (pair[0].1.at, pair[1].1.at)).collect()
}

/// A path through `points`, which begins anew after each that is missing. A point alone is a line without length, whose round ends
/// are a dot.
fn path(points: &[Option<(f64, f64)>]) -> String {
    let mut path = String::new();
    for run in runs(points) {
        for (at, (x, y)) in run.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        if run.len() == 1 {
            path.push_str("h0");
        }
    }
    path
}

/// What is between such a path and the base line.
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

/// The points that follow one another without one missing.
fn runs(points: &[Option<(f64, f64)>]) -> impl Iterator<Item = Vec<(f64, f64)>> {
    let runs = points.split(Option::is_none).filter(|run| !run.is_empty());
    runs.map(|run| run.iter().flatten().copied().collect())
}

fn percent(part: f64) -> String {
    format!("{:.3}%", part * 100.0)
}

fn pixels(length: f64) -> String {
    format!("{length:.1}")
}

/// What a row's line says to those who don't see it.
pub fn spark_label(counts: &[Option<u64>], span: &str) -> String {
    let known = || counts.iter().flatten().copied();
    match (known().min(), known().max()) {
        (Some(lowest), Some(highest)) => {
            format!("{span}: between {} and {}", format::number(lowest), format::number(highest))
        }
        _ => "No history yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings<'static> {
        Surroundings { id: "it", label: "What it shows".into(), across: "days ago", ticks: Vec::new() }
    }

    fn bar(count: u64) -> Bar {
        Bar { count, title: format!("{count} <users>") }
    }

    #[test]
    fn bars_are_as_high_as_their_counts_and_share_the_width() {
        let svg = bars(&surroundings(), &[bar(0), bar(50), bar(100), bar(25)]).into_string();
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
    fn somebody_is_seen_beside_millions() {
        let svg = bars(&surroundings(), &[bar(1), bar(4_000_000)]).into_string();
        assert!(svg.contains(" height=\"1.5\""), "{svg}");
    }

    #[test]
    fn a_line_has_no_stroke_where_there_is_no_count() {
        let counts = [Some(10), Some(20), None, Some(5), None, None];
        let marks: Vec<_> = (counts.iter().enumerate())
            .map(|(at, count)| DataPoint { count: *count, at: at as f64 / 5.0, title: format!("{count:?}") })
            .collect();
        let svg = line(&surroundings(), &marks).into_string();
        assert!(svg.contains("d=\"M0.0 100.0L200.0 0.0M600.0 150.0h0\""), "{svg}");
        assert_eq!(svg.matches("class=\"gap\"").count(), 1, "the end is no gap: {svg}");
        assert!(svg.contains("class=\"gap\" x=\"20.000%\" width=\"40.000%\""), "{svg}");
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"hit\"").count()), (3, 6));
    }

    #[test]
    fn a_row_without_history_has_a_dash_and_one_with_it_says_its_range() {
        assert!(spark("none", &[None, None]).into_string().contains('–'));
        let counts = [Some(1_000), None, Some(2_000)];
        let svg = spark(&spark_label(&counts, "14 days"), &counts).into_string();
        assert!(svg.contains("aria-label=\"14 days: between 1,000 and 2,000\""), "{svg}");
        assert!(svg.contains("d=\"M3.0 25.0h0M117.0 3.0h0\""), "{svg}");
    }

    #[test]
    fn a_chart_of_nothing_is_a_chart() {
        assert!(bars(&surroundings(), &[]).into_string().contains("<svg"));
        assert!(line(&surroundings(), &[]).into_string().contains("<svg"));
    }
}
