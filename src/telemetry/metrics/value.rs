//! Values of gauges.

/// Returns `number` as the value of a gauge. Rounds beyond 2^53, as all numbers of Prometheus.
pub(super) fn gauge_value(number: Option<u64>) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "Prometheus's numbers are doubles")]
    number.map_or(f64::NAN, |number| number as f64)
}
