//! The errors of the estimates of all segments.

use segment_estimator::domain::Estimate;

use crate::data::Data;
use crate::engine::Kind;
use crate::report::{Check, Part, thousands};
use crate::run::Figures;

/// The minimum share of estimates within their stated error.
const WITHIN: f64 = 0.93;
/// The maximum distance of the mean error from 0, in standard errors of the mean.
const BIAS: f64 = 3.0;

/// The errors of the estimates of all segments, of one load.
#[derive(Clone, Default)]
pub struct Errors {
    /// For each segment that keeps a sample, the error as a share of its users.
    relative: Vec<f64>,
    /// How many of them are within the stated error.
    within: usize,
    /// The standard error of the mean of the errors.
    of_mean: f64,
    /// How many segments keep all users.
    exact: usize,
}

impl Errors {
    /// Compares `estimates` with the loaded data, which are the segments' in the same order.
    ///
    /// # Errors
    ///
    /// An exact count that is wrong.
    pub fn of(estimates: &[Estimate], data: &Data) -> crate::Result<Self> {
        let (mut errors, mut weights) = (Self::default(), Vec::new());
        for (estimate, size) in estimates.iter().zip(data.sizes()) {
            if estimate.is_exact() {
                if estimate.count() != size {
                    return Err(format!("a segment has {size} users and counts exactly {estimate}").into());
                }
                errors.exact += 1;
                continue;
            }
            let relative = estimate.count() as f64 / size as f64 - 1.0;
            errors.within += usize::from(relative.abs() * size as f64 <= 1.96 * estimate.variance().sqrt());
            errors.relative.push(relative);
            // The variance of N users is N (2^k - 1).
            weights.push((estimate.variance() / estimate.count() as f64, size as f64));
        }
        errors.of_mean = standard_error_of_mean(&weights, data.users() as f64);
        Ok(errors)
    }

    fn mean(&self) -> f64 {
        self.relative.iter().sum::<f64>() / self.relative.len().max(1) as f64
    }

    fn rms(&self) -> f64 {
        (self.relative.iter().map(|error| error * error).sum::<f64>() / self.relative.len().max(1) as f64).sqrt()
    }
}

/// Returns the standard error of the mean of relative errors. `segments` have 2^k - 1 and the number of users.
///
/// A user has the same level in every segment, so the errors of two segments are correlated: the covariance of their
/// estimates is |A and B| (2^min - 1), with the lower depth of the two. Of `users`, |A| |B| / `users` are in both on
/// average.
fn standard_error_of_mean(segments: &[(f64, f64)], users: f64) -> f64 {
    let mut variance = 0.0;
    for (one, (odds, size)) in segments.iter().enumerate() {
        variance += odds / size;
        for (others, _) in segments.iter().enumerate().filter(|(other, _)| *other != one).map(|(_, other)| other) {
            variance += odds.min(*others) / users;
        }
    }
    variance.sqrt() / segments.len().max(1) as f64
}

/// Reports the errors of each number of pairs.
pub fn part(figures: &[Figures]) -> Part {
    let bounded: Vec<_> = figures.iter().filter(|one| one.kind == Kind::Bounded).collect();
    let rows = bounded.iter().map(|one| {
        let Errors { relative, within, of_mean, exact } = &one.errors;
        vec![
            thousands(one.pairs as f64),
            exact.to_string(),
            relative.len().to_string(),
            format!("{:.1} %", 100.0 * *within as f64 / relative.len().max(1) as f64),
            format!("{:+.3} %", 100.0 * one.errors.mean()),
            format!("{:.3} %", 100.0 * of_mean),
            format!("{:.3} %", 100.0 * one.errors.rms()),
        ]
    });
    let sampled: usize = bounded.iter().map(|one| one.errors.relative.len()).sum();
    let within: usize = bounded.iter().map(|one| one.errors.within).sum();
    let share = within as f64 / sampled.max(1) as f64;
    let bias = bounded.iter().map(|one| (one.errors.mean() / one.errors.of_mean).abs()).fold(0.0, f64::max);
    Part {
        title: "errors of estimates",
        note: "All segments after each load. The errors of segments with common users are correlated, so the mean has a larger \
               standard error than that of independent ones; the column has it."
            .to_owned(),
        columns: vec!["pairs", "exact segments", "sampled", "within `error_95`", "mean error", "its standard error", "rms error"],
        rows: rows.collect(),
        checks: vec![
            Check::of(
                "estimates within `error_95`, of all loads",
                format!("{:.1} % of {sampled}", 100.0 * share),
                &format!("≥ {:.0} %", 100.0 * WITHIN),
                share >= WITHIN,
            ),
            Check::of(
                "mean of the signed relative error, in its standard errors, the largest of the loads",
                format!("{bias:.2}"),
                &format!("≤ {BIAS:.0}"),
                bias <= BIAS,
            ),
        ],
    }
}
