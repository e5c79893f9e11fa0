//! Least-squares fits of a figure by the number of pairs.

/// A point: the pairs, and the figure.
pub type Point = (f64, f64);

/// `factor * pairs ^ exponent`, fitted on logarithms.
#[derive(Clone, Copy)]
pub struct Power {
    factor: f64,
    pub exponent: f64,
    /// R² of the logarithms.
    pub r2: f64,
}

/// `base + slope * pairs`.
#[derive(Clone, Copy)]
pub struct Line {
    pub base: f64,
    pub slope: f64,
    /// R².
    pub r2: f64,
}

impl Line {
    /// Fits a line.
    pub fn of(points: &[Point]) -> Self {
        let count = points.len() as f64;
        let mean = |value: fn(&Point) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |product: &dyn Fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|point| product(point.0 - x, point.1 - y)).sum()
        };
        let (xx, xy, yy) = (sum(&|dx, _| dx * dx), sum(&|dx, dy| dx * dy), sum(&|_, dy| dy * dy));
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        let r2 = if xx > 0.0 && yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
        Self { base: y - slope * x, slope, r2 }
    }

    /// Returns the figure for so many pairs.
    pub fn at(&self, pairs: f64) -> f64 {
        self.base + self.slope * pairs
    }
}

impl Power {
    /// Fits a power law to the logarithms.
    pub fn of(points: &[Point]) -> Self {
        let logarithms: Vec<_> = points.iter().map(|(pairs, figure)| (pairs.ln(), figure.ln())).collect();
        let line = Line::of(&logarithms);
        Self { factor: line.base.exp(), exponent: line.slope, r2: line.r2 }
    }

    /// Returns the figure for so many pairs.
    pub fn at(&self, pairs: f64) -> f64 {
        self.factor * pairs.powf(self.exponent)
    }
}
