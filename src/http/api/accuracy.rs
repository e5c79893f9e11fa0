//! How exact a number of users is.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Estimate;
use crate::http::table::Cell;

/// Whether a number of users is exact, flattened into an answer behind the number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Accuracy {
    /// Whether the count is exact. If false, it is an estimate from a sample: the data set bounds the members of a
    /// segment, and the segment has more.
    exact: bool,
    /// The error of an estimate: with a probability of 95 %, the count differs from the true one by less than this
    /// share of the count. Absent if the count is exact or 0, or if all of its users were counted one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, exclusive_minimum = 0, example = 0.0101)]
    error_95: Option<f64>,
}

impl Accuracy {
    /// The names of the columns of [`Self::cells`].
    pub const COLUMNS: [&str; 2] = ["exact", "error_95"];

    /// Returns the cells behind a count, which are empty if there is none.
    pub fn cells(accuracy: Option<&Self>) -> [Cell<'_>; 2] {
        [accuracy.map(|accuracy| accuracy.exact).into(), accuracy.and_then(|accuracy| accuracy.error_95).into()]
    }
}

impl From<Estimate> for Accuracy {
    fn from(estimate: Estimate) -> Self {
        Self { exact: estimate.is_exact(), error_95: error_95(estimate) }
    }
}

/// Returns the relative error of an estimate, rounded to three digits; `None` if it is exact, or 0.
pub fn error_95(estimate: Estimate) -> Option<f64> {
    estimate.error_95().map(|error| format!("{error:.2e}").parse().expect("it is a number"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::domain::Depth;

    #[rstest]
    #[case::exact(Estimate::exact(42), json!({ "exact": true }))]
    #[case::empty(Estimate::exact(0), json!({ "exact": true }))]
    #[case::sampled(Estimate::sampled(37_343, depth(7)), json!({ "exact": false, "error_95": 0.0101 }))]
    #[case::one_of_many(Estimate::sampled(1, depth(7)), json!({ "exact": false, "error_95": 1.95 }))]
    #[case::large(Estimate::sampled(8_388_608, depth(3)), json!({ "exact": false, "error_95": 0.000633 }))]
    #[case::empty_sample(Estimate::sampled(0, depth(7)), json!({ "exact": false }))]
    fn accuracy_has_an_error_if_the_count_has_one(#[case] estimate: Estimate, #[case] expected: serde_json::Value) {
        assert_eq!(serde_json::to_value(Accuracy::from(estimate)).unwrap(), expected);
    }

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }
}
