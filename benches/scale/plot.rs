//! A curve as an SVG: points and their fitted line, on logarithmic axes.
//!
//! Written by hand: it takes only a page of code, and the picture must be readable on a light and on a dark page. So
//! its colours are rules of CSS, which no plotting library writes.

use std::fmt::Write as _;

use crate::fit::Point;

/// The series of one engine.
pub struct Series {
    pub name: &'static str,
    pub points: Vec<Point>,
    /// Points of the fitted line.
    pub line: Vec<Point>,
    /// The equation of the line.
    pub fit: String,
}

const WIDTH: f64 = 740.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 520.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 332.0;
/// The minimum distance of two labels.
const LABEL: f64 = 36.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.soft{font-size:12px;fill:#59636e}\
.grid{stroke:#d1d9e0}.a{color:#0969da}.b{color:#bc4c00}.c{color:#1a7f37}\
.fit{fill:none;stroke:currentColor;stroke-width:1.5;stroke-dasharray:5 4}\
.point{fill:none;stroke:currentColor;stroke-width:1.5}.a .point{fill:currentColor}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#3d444d}\
.a{color:#4493f8}.b{color:#f0883e}.c{color:#3fb950}}";
/// The class of each series, and the radius of its points.
const MARKS: [(&str, f64); 3] = [("a", 3.5), ("b", 5.5), ("c", 7.5)];

/// An axis: the values at its ends, and their positions.
struct Axis {
    values: (f64, f64),
    ends: (f64, f64),
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let share = (value / self.values.0).ln() / (self.values.1 / self.values.0).ln();
        self.ends.0 + share * (self.ends.1 - self.ends.0)
    }
}

/// Draws the plot of one figure for all engines. `unit` is that of the figure.
pub fn draw(title: &str, unit: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| series.points.iter().chain(&series.line));
    let range = |value: fn(&Point) -> f64| {
        all().map(value).fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (pairs, figures) = (range(|point| point.0), range(|point| point.1));
    // An axis spans at least a factor of ten, so that a flat line looks flat.
    let (ticks, figures) = ticks(figures);
    let x = Axis { values: (pairs.0 / 1.2, pairs.1 * 1.2), ends: (LEFT, RIGHT) };
    let y = Axis { values: figures, ends: (BOTTOM, TOP) };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"{LEFT}\" y=\"22\">{title}, {unit}</text>\n"
    );
    for tick in ticks {
        let at = y.at(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"soft\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            short(tick)
        );
    }
    let mut sizes: Vec<_> = series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for size in sizes {
        let _ = writeln!(
            svg,
            "<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.at(size),
            BOTTOM + 18.0,
            short(size)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"soft\" text-anchor=\"end\" x=\"{RIGHT}\" y=\"{:.1}\">pairs (N: millions)</text>",
        BOTTOM + 38.0
    );
    // Larger markers are rings, so that points with the same figure stay visible.
    for ((series, (class, radius)), label) in series.iter().zip(MARKS.iter().cycle()).zip(labels(series, &y)) {
        let _ = writeln!(svg, "<g class=\"{class}\">");
        let line: Vec<_> = series.line.iter().map(|(px, py)| format!("{:.1} {:.1}", x.at(*px), y.at(*py))).collect();
        let _ = writeln!(svg, "<path class=\"fit\" d=\"M{}\"/>", line.join("L"));
        for (px, py) in &series.points {
            let _ = writeln!(
                svg,
                "<circle class=\"point\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"/>",
                x.at(*px),
                y.at(*py)
            );
        }
        let at = RIGHT + 12.0;
        let _ = writeln!(svg, "<circle class=\"point\" cx=\"{at:.1}\" cy=\"{:.1}\" r=\"{radius}\"/>", label - 4.0);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{label:.1}\">{}</text>", at + 14.0, series.name);
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n</g>",
            at + 14.0,
            label + 15.0,
            series.fit
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Returns the position of each label: at the end of its line, or as near as the others allow.
fn labels(series: &[Series], y: &Axis) -> Vec<f64> {
    let ends = series.iter().map(|series| series.line.last().map_or(BOTTOM, |point| y.at(point.1)));
    let mut order: Vec<_> = ends.enumerate().collect();
    order.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut labels = vec![0.0; series.len()];
    let mut free = TOP;
    let lowest = BOTTOM - LABEL * series.len() as f64;
    for (place, (index, end)) in order.into_iter().enumerate() {
        labels[index] = end.min(lowest + LABEL * (place + 1) as f64).max(free);
        free = labels[index] + LABEL;
    }
    labels
}

/// Returns round values for the grid, and the ends of an axis that covers `values`.
fn ticks((least, most): (f64, f64)) -> (Vec<f64>, (f64, f64)) {
    let middle = (least * most).sqrt();
    let (least, most) = (least.min(middle / 10_f64.sqrt()), most.max(middle * 10_f64.sqrt()));
    let first = least.log10().floor() as i32;
    let last = most.log10().ceil() as i32;
    let round = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let round: Vec<_> = round.collect();
    let begin = round.iter().rposition(|&tick| tick <= least).unwrap_or(0);
    let end = round.iter().position(|&tick| tick >= most).unwrap_or(round.len() - 1);
    let mut ticks = round[begin..=end].to_vec();
    let ends = (ticks[0], ticks[ticks.len() - 1]);
    if ticks.len() > 9 {
        ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 0.01);
    }
    (ticks, ends)
}

/// Formats a number for an axis: `300k`, `3M`, `0.5`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // At most three decimals, without trailing zeros.
    format!("{}{unit}", (value * 1e3).round() / 1e3)
}
