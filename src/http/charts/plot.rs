//! Draws a chart as SVG.
//!
//! On a page, a plot uses the available width: positions in it are percentages, so that text and strokes keep their
//! size. (The pages' policy forbids style attributes.) Each mark has a `<title>`, which browsers show as a tooltip and
//! `charts.js` shows under the chart. A table beside the chart has the same numbers for everyone else.

use maud::{Markup, html};

use super::axis::{Counts, Tick};
use super::path::{area, path};
use super::{Bar, Chart, DataPoint, Marks};

/// Where a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Canvas {
    /// A page, whose marks can be read one by one.
    Page,
    /// A picture whose plot has this size in pixels.
    Picture { width: f64, height: f64 },
}

/// Height of a plot on a page.
const PAGE_HEIGHT: f64 = 200.0;
/// Room above the plot, for half of a label.
pub const TOP: f64 = 10.0;
/// Room under the plot, for the labels of the horizontal axis.
pub const BOTTOM: f64 = 24.0;
/// Width of the labels of the counts.
pub const LABEL_WIDTH: f64 = 44.0;
/// Gap between bars, as a fraction of the bar.
const GAP: f64 = 0.12;
/// Width of a character of a label in pixels, at most.
const CHARACTER: f64 = 7.0;
/// Gap between labels in pixels, at least.
const LABEL_GAP: f64 = 6.0;

impl Canvas {
    /// Returns the height of the chart.
    pub fn height(self) -> f64 {
        self.base() + BOTTOM
    }

    fn plot_height(self) -> f64 {
        match self {
            Self::Page => PAGE_HEIGHT,
            Self::Picture { height, .. } => height,
        }
    }

    /// Returns the position of the base line.
    fn base(self) -> f64 {
        TOP + self.plot_height()
    }

    /// Returns the part `at` of the width, from 0 to 1, as a length.
    fn x(self, at: f64) -> String {
        match self {
            Self::Page => percent(at),
            Self::Picture { width, .. } => pixels(at * width),
        }
    }

    /// Returns the width of the coordinates of paths, which can't be percentages.
    fn path_width(self) -> f64 {
        match self {
            Self::Page => 1_000.0,
            Self::Picture { width, .. } => width,
        }
    }
}

/// Draws the labels of the counts, right-aligned in [`LABEL_WIDTH`].
pub fn count_labels(counts: &Counts, canvas: Canvas) -> Markup {
    html! {
        @for tick in &counts.ticks {
            text x=(LABEL_WIDTH - 8.0) y=(pixels(height_of(tick, canvas) + 4.0)) text-anchor="end" { (tick.label) }
        }
    }
}

/// Draws the grid, the marks and the horizontal axis.
pub fn plot(chart: &Chart, counts: &Counts, canvas: Canvas) -> Markup {
    let base = canvas.base();
    // Narrow screens show only every second or third label.
    let every = chart.x_ticks.len().div_ceil(4).max(1);
    html! {
        @for tick in &counts.ticks {
            @let y = pixels(height_of(tick, canvas));
            line .grid .base[tick.at == 0.0] x1="0" x2=(canvas.x(1.0)) y1=(y) y2=(y) {}
        }
        @for tick in &chart.x_ticks {
            @let x = canvas.x(tick.at);
            line .grid x1=(x) x2=(x) y1=(pixels(base)) y2=(pixels(base + 4.0)) {}
        }
        @match &chart.marks {
            Marks::Bars(marks) => { (bars(marks, counts, canvas)) }
            Marks::Line(points) => { (line(points, counts, canvas)) }
        }
        @for (index, tick) in chart.x_ticks.iter().rev().step_by(label_step(&chart.x_ticks, canvas)).enumerate() {
            text .minor[!index.is_multiple_of(every)] x=(canvas.x(tick.at)) y=(pixels(canvas.height() - 6.0))
                text-anchor=(anchor(tick, canvas)) { (tick.label) }
        }
        @if canvas == Canvas::Page {
            line .crosshair x1="0" x2="0" y1=(pixels(TOP)) y2=(pixels(base)) {}
        }
    }
}

fn bars(bars: &[Bar], counts: &Counts, canvas: Canvas) -> Markup {
    let width = 1.0 / bars.len().max(1) as f64;
    html! {
        @for (index, bar) in (0_u32..).zip(bars) {
            @let left = f64::from(index) * width;
            @let height = counts.position(bar.count) * canvas.plot_height();
            // A single user is visible, however high the other bars are.
            @let height = if bar.count > 0 { height.max(1.5) } else { 0.0 };
            @let fill = html! {
                rect .fill x=(canvas.x(left + GAP / 2.0 * width)) width=(canvas.x((1.0 - GAP) * width))
                    y=(pixels(canvas.base() - height)) height=(pixels(height)) {}
            };
            (mark(canvas, Mark { class: "bar", key: &index.to_string(), at: left + width / 2.0, from: left, to: left + width, reading: &bar.reading }, &fill))
        }
    }
}

fn line(data: &[DataPoint], counts: &Counts, canvas: Canvas) -> Markup {
    let height = canvas.plot_height();
    let width = canvas.path_width();
    let place = |point: &DataPoint| {
        let count = point.count?;
        Some((point.at * width, (1.0 - counts.position(count)) * height))
    };
    let points: Vec<_> = data.iter().map(place).collect();
    html! {
        @for (from, to) in gaps(data) {
            rect .gap x=(canvas.x(from)) width=(canvas.x(to - from)) y=(pixels(TOP)) height=(pixels(height)) {}
        }
        svg x="0" y=(pixels(TOP)) width=(canvas.x(1.0)) height=(pixels(height)) viewBox=(format!("0 0 {width} {height}"))
            preserveAspectRatio="none" {
            path .area d=(area(&points, height)) {}
            path .line d=(path(&points)) vector-effect="non-scaling-stroke" {}
        }
        @for (index, point) in data.iter().enumerate() {
            // The hover area reaches half the way to the neighbours.
            @let from = index.checked_sub(1).map_or(0.0, |before| (data[before].at + point.at) / 2.0);
            @let to = data.get(index + 1).map_or(1.0, |after| (point.at + after.at) / 2.0);
            @let circle = html! {
                @if let (Some(count), true) = (point.count, canvas == Canvas::Page || point.is_live) {
                    circle class=[point.is_live.then_some("live")] cx=(canvas.x(point.at)) cy=(pixels(canvas.base() - counts.position(count) * height)) r="4" {}
                }
            };
            @let key = if point.is_live { "now".to_owned() } else { point.step_start.as_millis().to_string() };
            (mark(canvas, Mark { class: "point", key: &key, at: point.at, from, to, reading: &point.reading }, &circle))
        }
    }
}

/// A bar or a point.
struct Mark<'a> {
    class: &'a str,
    /// Identifies the mark on the refreshed page.
    key: &'a str,
    /// Its position, from 0 to 1.
    at: f64,
    /// The part of the plot whose pointer reads this mark.
    from: f64,
    to: f64,
    reading: &'a str,
}

/// Draws `shape`. On a page, it can be read.
fn mark(canvas: Canvas, Mark { class, key, at, from, to, reading }: Mark<'_>, shape: &Markup) -> Markup {
    if canvas != Canvas::Page {
        return shape.clone();
    }
    html! {
        g class={ "mark " (class) } data-key=(key) data-x=(canvas.x(at)) {
            title { (reading) }
            rect .hit x=(canvas.x(from)) width=(canvas.x(to - from)) y=(pixels(TOP)) height=(pixels(canvas.plot_height())) {}
            (shape)
        }
    }
}

fn height_of(tick: &Tick, canvas: Canvas) -> f64 {
    canvas.base() - tick.at * canvas.plot_height()
}

/// Keeps a label at the right end within the margin, even on the narrowest screen. At the left end, the labels of the
/// counts leave room for half of it.
fn anchor(tick: &Tick, canvas: Canvas) -> &'static str {
    const MARGIN: f64 = 16.0;
    let width = match canvas {
        // In pixels, on a screen of 320.
        Canvas::Page => 244.0,
        Canvas::Picture { width, .. } => width,
    };
    let half = label_width(tick) / 2.0;
    if (1.0 - tick.at) * width + MARGIN < half { "end" } else { "middle" }
}

fn label_width(tick: &Tick) -> f64 {
    tick.label.chars().count() as f64 * CHARACTER
}

/// Returns the smallest n for which every n-th label fits, counted from the right. On a page the style sheet hides
/// labels by the width of the screen.
fn label_step(ticks: &[Tick], canvas: Canvas) -> usize {
    let Canvas::Picture { width, .. } = canvas else { return 1 };
    let bounds = |tick: &Tick| {
        let right = tick.at * width + if anchor(tick, canvas) == "end" { 0.0 } else { label_width(tick) / 2.0 };
        (right - label_width(tick), right)
    };
    let fits = |step: &usize| {
        let labels: Vec<_> = ticks.iter().rev().step_by(*step).map(bounds).collect();
        labels.windows(2).all(|pair| pair[1].1 + LABEL_GAP <= pair[0].0)
    };
    (1..ticks.len()).find(fits).unwrap_or(ticks.len().max(1))
}

/// Returns the gaps between counts, as their positions.
fn gaps(data: &[DataPoint]) -> Vec<(f64, f64)> {
    let known: Vec<_> = data.iter().enumerate().filter(|(_, point)| point.count.is_some()).collect();
    let pairs = known.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1);
    pairs.map(|pair| (pair[0].1.at, pair[1].1.at)).collect()
}

pub fn percent(part: f64) -> String {
    format!("{:.3}%", part * 100.0)
}

fn pixels(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Timestamp;

    fn drawn(marks: Marks) -> String {
        drawn_on(Canvas::Page, marks)
    }

    fn drawn_on(canvas: Canvas, marks: Marks) -> String {
        let chart = Chart { label: "What it shows".into(), x_label: "days ago".into(), x_ticks: Vec::new(), marks };
        plot(&chart, &chart.counts(), canvas).into_string()
    }

    fn bar(count: u64) -> Bar {
        Bar { count, reading: format!("{count} <users>") }
    }

    /// Returns points at equal distances.
    fn points(counts: &[Option<u64>]) -> Vec<DataPoint> {
        let last = counts.len().saturating_sub(1).max(1) as f64;
        let point = |(index, count): (usize, &Option<u64>)| DataPoint {
            count: *count,
            at: index as f64 / last,
            step_start: Timestamp::from_millis(index as i64),
            is_live: false,
            reading: format!("{count:?}"),
        };
        counts.iter().enumerate().map(point).collect()
    }

    #[test]
    fn bars_have_proportional_heights_and_equal_widths() {
        let svg = drawn(Marks::Bars([0, 50, 100, 25].map(bar).into()));
        let fills: Vec<_> = svg.split("class=\"fill\"").skip(1).map(|rect| rect.split('>').next().unwrap()).collect();
        let heights = ["0.0", "100.0", "200.0", "50.0"];
        assert_eq!(fills.len(), heights.len());
        for (at, (fill, height)) in fills.iter().zip(heights).enumerate() {
            assert!(fill.contains(&format!(" height=\"{height}\"")), "{fill}");
            let x = (at as f64 + 0.06) * 25.0;
            assert!(fill.contains(&format!(" x=\"{x:.3}%\" width=\"22.000%\"")), "{fill}");
        }
        assert!(svg.contains("<title>50 &lt;users&gt;</title>"), "{svg}");
        assert!(svg.contains("data-key=\"1\" data-x=\"37.500%\""), "{svg}");
    }

    #[test]
    fn bar_of_one_user_is_visible_beside_millions() {
        let svg = drawn(Marks::Bars([1, 4_000_000].map(bar).into()));
        assert!(svg.contains(" height=\"1.5\""), "{svg}");
    }

    #[test]
    fn line_has_gaps_where_counts_are_missing() {
        let svg = drawn(Marks::Line(points(&[Some(10), Some(20), None, Some(5), None, None])));
        assert!(svg.contains("d=\"M0.0 100.0L200.0 0.0M600.0 150.0h0\""), "{svg}");
        assert_eq!(svg.matches("class=\"gap\"").count(), 1, "the end is no gap: {svg}");
        assert!(svg.contains("class=\"gap\" x=\"20.000%\" width=\"40.000%\""), "{svg}");
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"hit\"").count()), (3, 6));
    }

    #[test]
    fn live_point_is_the_only_one_in_a_picture() {
        let mut points = points(&[Some(10), Some(20)]);
        points[1].is_live = true;
        let page = drawn(Marks::Line(points.clone()));
        assert!(page.contains("data-key=\"0\"") && page.contains("data-key=\"now\""), "{page}");
        let picture = drawn_on(Canvas::Picture { width: 300.0, height: 100.0 }, Marks::Line(points));
        assert!(picture.contains("d=\"M0.0 50.0L300.0 0.0\""), "{picture}");
        assert!(picture.contains("<circle class=\"live\" cx=\"300.0\" cy=\"10.0\""), "{picture}");
        let absent = ["%", "<title", "hit", "crosshair"];
        assert!(
            picture.matches("<circle").count() == 1 && !absent.iter().any(|part| picture.contains(part)),
            "{picture}"
        );
    }

    #[test]
    fn labels_are_centred_unless_they_would_be_cut_off() {
        let ticks = [(0.0, "Nov 2026"), (0.9, "21 Nov"), (0.97, "22 Nov"), (0.99, "23 Nov"), (1.0, "now")];
        let x_ticks = ticks.map(|(at, label)| Tick { at, label: label.into() }).into();
        let chart = Chart { label: String::new(), x_label: String::new(), x_ticks, marks: Marks::Bars(vec![bar(1)]) };
        let svg = plot(&chart, &chart.counts(), Canvas::Page).into_string();
        let anchors = svg.split("text-anchor=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert_eq!(
            anchors.collect::<Vec<_>>(),
            ["middle", "end", "middle", "middle", "middle"],
            "from the right: {svg}"
        );
    }

    #[rstest]
    #[case::fitting(14, "14", 396.0, 15)]
    #[case::tight(28, "336", 396.0, 15)]
    #[case::many(100, "1,209,600", 396.0, 6)]
    #[case::many_in_a_wide_picture(100, "1,209,600", 1_900.0, 26)]
    #[case::none(0, "", 396.0, 0)]
    fn picture_has_the_labels_that_fit(
        #[case] steps: usize,
        #[case] label: &str,
        #[case] width: f64,
        #[case] expected: usize,
    ) {
        let tick = |index: usize| Tick {
            at: index as f64 / steps as f64,
            label: if index == steps { "now" } else { label }.to_owned(),
        };
        let x_ticks: Vec<_> = (0..=steps).filter(|_| steps > 0).map(tick).collect();
        let chart = Chart { label: String::new(), x_label: String::new(), x_ticks, marks: Marks::Bars(vec![bar(1)]) };
        let svg = plot(&chart, &chart.counts(), Canvas::Picture { width, height: 100.0 }).into_string();
        let attribute = |text: &str, name: &str| text.split(name).nth(1)?.split('"').next()?.parse::<f64>().ok();
        let labels: Vec<_> = svg
            .split("<text")
            .skip(1)
            .map(|text| {
                let label = text.split(['<', '>']).nth(1).unwrap();
                (attribute(text, " x=\"").unwrap(), label.len() as f64 * 7.0, label)
            })
            .collect();
        assert_eq!(labels.len(), expected, "{labels:?}");
        assert!(labels.first().is_none_or(|last| last.2 == "now"), "{labels:?}");
        for pair in labels.windows(2) {
            let [(right, right_width, _), (left, left_width, _)] = pair else { unreachable!() };
            assert!(left + left_width / 2.0 < right - right_width / 2.0, "{pair:?}");
        }
        let grid = svg.matches("class=\"grid\"").count();
        assert!(grid > steps, "each bucket has its tick: {svg}");
    }

    #[test]
    fn charts_without_data_are_drawn() {
        assert!(drawn(Marks::Bars(Vec::new())).contains("class=\"grid base\""));
        assert!(drawn(Marks::Line(Vec::new())).contains("class=\"grid base\""));
    }
}
