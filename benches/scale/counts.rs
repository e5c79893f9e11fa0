//! Counting every segment, one after the other.

use std::time::Instant;

use segment_estimator::estimator::Estimator;

use crate::Result;
use crate::bounded::Errors;
use crate::data::{Data, NOW, segments};

/// Counts all segments once. Returns the microseconds of each count, beginning with the largest segment, and the errors
/// of estimates.
///
/// # Errors
///
/// An exact count that differs from the loaded data.
pub async fn pass(estimator: &Estimator, data: &Data) -> Result<(Vec<f64>, Errors)> {
    let (mut times, mut estimates) = (Vec::new(), Vec::new());
    for segment in &segments()? {
        let started = Instant::now();
        estimates.push(estimator.estimate(segment, NOW).await?);
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok((times, Errors::of(&estimates, data)?))
}

/// Returns a percentile.
pub fn percentile(values: &[f64], hundredths: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (hundredths / 100.0 * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}
