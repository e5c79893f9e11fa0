//! The figures that grow with the number of pairs, their fits and their plots.

use crate::engine::Kind;
use crate::fit::{Line, Point, Power};
use crate::plot::{self, Series};
use crate::report::Part;
use crate::run::Figures;

/// A figure that grows with the pairs.
pub struct Curve {
    /// The name of its file.
    pub name: &'static str,
    title: &'static str,
    unit: &'static str,
    figure: fn(&Figures) -> f64,
    /// Whether a line is fitted and not a power.
    is_line: bool,
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// All curves, in the order of the report.
const CURVES: [Curve; 8] = [
    Curve::power("load", "Load", "s", |figures| figures.loaded.seconds),
    Curve::power("count-p50", "Count, p50", "µs", |figures| figures.count_percentile(50.0)),
    Curve::power("count-p99", "Count, p99", "µs", |figures| figures.count_percentile(99.0)),
    Curve::line("memory", "Memory of the data", "MiB", |figures| figures.memory.iter().sum::<f64>() / MEBIBYTE),
    Curve::line("resident", "Resident memory", "MiB", |figures| figures.resident.iter().sum::<f64>() / MEBIBYTE),
    Curve::power("rewrite", "Rewrite of the append-only file", "s", |figures| figures.rewrite),
    Curve::power("restart", "Restart until all is read", "s", |figures| figures.restart.read),
    Curve::power("prune", "Prune of one day's worth", "s", |figures| figures.pruned.seconds),
];

/// The fit of a curve.
enum Fit {
    Power(Power),
    Line(Line),
}

impl Fit {
    fn at(&self, pairs: f64) -> f64 {
        match self {
            Self::Power(power) => power.at(pairs),
            Self::Line(line) => line.at(pairs),
        }
    }

    fn r2(&self) -> f64 {
        match self {
            Self::Power(Power { r2, .. }) | Self::Line(Line { r2, .. }) => *r2,
        }
    }
}

impl Curve {
    const fn power(name: &'static str, title: &'static str, unit: &'static str, figure: fn(&Figures) -> f64) -> Self {
        Self { name, title, unit, figure, is_line: false }
    }

    const fn line(name: &'static str, title: &'static str, unit: &'static str, figure: fn(&Figures) -> f64) -> Self {
        Self { is_line: true, ..Self::power(name, title, unit, figure) }
    }

    /// The memory of bounded segments follows no line.
    fn fit(&self, points: &[Point], kind: Kind) -> Fit {
        if self.is_line && kind != Kind::Bounded { Fit::Line(Line::of(points)) } else { Fit::Power(Power::of(points)) }
    }

    /// Returns the equation, with pairs in millions.
    fn equation(&self, fit: &Fit) -> String {
        match fit {
            Fit::Line(line) => format!("{:.1} + {} · N", line.base, significant(line.slope * 1e6)),
            Fit::Power(power) => format!("{} · N^{:.2}", significant(power.at(1e6)), power.exponent),
        }
    }
}

/// Formats with three significant digits.
fn significant(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

/// Returns a figure of one engine in every round and size.
pub fn points(figures: &[Figures], kind: Kind, figure: impl Fn(&Figures) -> f64) -> Vec<Point> {
    figures.iter().filter(|one| one.kind == kind).map(|one| (one.pairs as f64, figure(one))).collect()
}

/// Returns the plots, each with the name of its file.
pub fn plots(figures: &[Figures], engines: &[Kind]) -> Vec<(String, String)> {
    /// Points of a drawn line; on logarithmic axes `a + b N` is curved.
    const STEPS: u32 = 24;
    let plot = |curve: &Curve| {
        let series = engines.iter().map(|&kind| {
            let points = points(figures, kind, curve.figure);
            let fit = curve.fit(&points, kind);
            let least = points.iter().map(|point| point.0).fold(f64::INFINITY, f64::min);
            let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
            let step = |step: u32| least * (most / least).powf(f64::from(step) / f64::from(STEPS));
            let line = (0..=STEPS).map(|number| (step(number), fit.at(step(number)))).collect();
            let text = format!("{}, R² {:.3}", curve.equation(&fit), fit.r2());
            Series { name: kind.name(), points, line, fit: text }
        });
        (format!("{}.svg", curve.name), plot::draw(curve.title, curve.unit, &series.collect::<Vec<_>>()))
    };
    CURVES.iter().map(plot).collect()
}

/// Reports the growth of every figure.
pub fn growth(figures: &[Figures], engines: &[Kind]) -> Part {
    let mut rows = Vec::new();
    for curve in &CURVES {
        for &kind in engines {
            let points = points(figures, kind, curve.figure);
            let fit = curve.fit(&points, kind);
            let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
            rows.push(vec![
                format!("{}, {}", curve.title, curve.unit),
                kind.name().to_owned(),
                curve.equation(&fit),
                format!("{:.3}", fit.r2()),
                format!("{:.2} x", fit.at(10.0 * most) / fit.at(most)),
            ]);
        }
    }
    let pictures: Vec<_> = CURVES.iter().map(|curve| format!("![{}](scale/{}.svg)", curve.title, curve.name)).collect();
    Part {
        title: "growth",
        note: format!(
            "Least-squares fits over all rounds, N in millions of pairs: a power law for times and bounded memory, fitted to \
             logarithms, and a line for other memory. The last column is how much the fit grows from the most measured pairs to ten times as many. \
             R² is meaningless for a flat curve, which has no variance to explain.\n\n{}",
            pictures.join("\n")
        ),
        columns: vec!["figure", "engine", "fit", "R²", "ten times as many"],
        rows,
        checks: Vec::new(),
    }
}
