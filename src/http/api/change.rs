//! The change of a count in an answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::estimator;
use crate::http::table::Cell;

/// The change of a count between two samples, over the configured window.
#[derive(Serialize, ToSchema)]
#[schema(as = Change)]
pub struct CountChange {
    /// The later count less the earlier one.
    absolute: i64,
    /// The error if one of the counts is an estimate: with a probability of 95 %, `absolute` differs from the true
    /// change by less than so many users. Absent if both counts are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 68_000)]
    absolute_error_95: Option<u64>,
    /// The difference as a share of the earlier count, rounded to four digits; null if the earlier count was 0.
    #[schema(required, minimum = -1)]
    relative: Option<f64>,
    /// The time of the earlier count.
    #[schema(format = DateTime)]
    from: String,
    /// The time of the later count: that of the last sample, or of the answer if the segment has emptied since.
    #[schema(format = DateTime)]
    to: String,
}

impl CountChange {
    /// The names of the columns of [`Self::cells`], behind the name of the change.
    pub const COLUMNS: [&str; 5] = ["absolute", "absolute_error_95", "relative", "from", "to"];

    /// Returns the cells of a change, which are empty if there is none.
    pub fn cells(change: Option<&Self>) -> [Cell<'_>; 5] {
        [
            change.map(|change| change.absolute).into(),
            change.and_then(|change| change.absolute_error_95).into(),
            change.and_then(|change| change.relative).into(),
            change.map(|change| change.from.as_str()).into(),
            change.map(|change| change.to.as_str()).into(),
        ]
    }
}

impl From<estimator::Change> for CountChange {
    fn from(change: estimator::Change) -> Self {
        let rounded = |relative: f64| (relative * 10_000.0).round() / 10_000.0;
        Self {
            absolute: change.absolute(),
            absolute_error_95: change.difference().absolute_error_95(),
            relative: change.relative().map(rounded),
            from: change.from.to_string(),
            to: change.to.to_string(),
        }
    }
}
