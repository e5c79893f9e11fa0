//! SVG paths of lines that may be interrupted.

use std::fmt::Write as _;

/// Returns an SVG path through `points`, interrupted where one is missing. A single point becomes a line of length 0,
/// whose round caps form a dot.
pub fn path(points: &[Option<(f64, f64)>]) -> String {
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

/// Returns the area between that path and the base line, at `base`.
pub fn area(points: &[Option<(f64, f64)>], base: f64) -> String {
    let mut path = String::new();
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
