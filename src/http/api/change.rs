//! The change of a count in an answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::estimator;

/// The change of a count between two samples.
#[derive(Serialize, ToSchema)]
pub struct Change {
    /// The later count less the earlier one.
    absolute: i64,
    /// The difference as a share of the earlier count, rounded to four digits; null if the earlier count was 0.
    #[schema(required, minimum = -1)]
    relative: Option<f64>,
}

impl From<estimator::Change> for Change {
    fn from(change: estimator::Change) -> Self {
        let rounded = |relative: f64| (relative * 10_000.0).round() / 10_000.0;
        Self { absolute: change.absolute(), relative: change.relative().map(rounded) }
    }
}
