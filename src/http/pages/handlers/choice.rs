//! Segments that a form chooses.

use std::sync::Arc;

use super::super::error;
use super::super::similar::UnknownName;
use crate::domain::{Estimate, SegmentName};
use crate::estimator::ListQuery;
use crate::estimator::overlap::{OverlapError, Overlaps};
use crate::http::extract::query::Parameters;
use crate::http::middleware::endpoint::with_timeout;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::similar_names::similar_names;
use crate::http::state::AppState;

/// Returns the names that a person typed into the fields `parameter`, without the white space around them.
pub fn typed_names(query: &Parameters, parameter: &str) -> Vec<String> {
    query.all(parameter).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Checks that at most [`Overlaps::MAX_SEGMENTS`] are chosen.
///
/// # Errors
///
/// A [`Problem`] that names the surplus.
pub fn check_number(names: &[&str]) -> Result<()> {
    let (max, count) = (Overlaps::MAX_SEGMENTS, names.len());
    if count <= max {
        return Ok(());
    }
    let surplus = &names[max..];
    let named: Vec<_> = surplus.iter().take(max).map(|name| format!("“{name}”")).collect();
    let others = surplus.len() - named.len();
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    let detail = format!("Choose at most {max} segments (you chose {count}). Remove {}{others}.", named.join(", "));
    Err(Problem::new(ProblemKind::Invalid, detail))
}

/// Returns the names of the largest segments.
pub async fn suggestions(state: &Arc<AppState>) -> Result<Vec<String>> {
    const MAX_SUGGESTIONS: usize = 300;
    let now = state.synced_now().await?;
    let query = ListQuery::largest(MAX_SUGGESTIONS, state.estimator.window());
    let list = with_timeout(state.limits.request, state.estimator.list(&query, now)).await??;
    let mut counted = list.segments;
    counted.retain(|counted| counted.count.is_some());
    counted.sort_by(|one, other| one.segment.cmp(&other.segment));
    Ok(counted.into_iter().map(|counted| counted.segment.to_string()).collect())
}

/// Finds those of `segments` that the service does not know, and similar names that are not chosen. `counts` are their
/// users.
pub async fn find_unknown<'a>(
    state: &AppState,
    segments: &'a [SegmentName<'static>],
    counts: &[Estimate],
) -> Result<Vec<UnknownName<'a>>> {
    let counted: Vec<_> = segments.iter().zip(counts).map(|(segment, count)| (segment, count.count() > 0)).collect();
    let known = state.estimator.are_known(&counted).await?;
    let unknown = segments.iter().zip(known).filter(|(_, is_known)| !is_known);
    let unknown: Vec<_> = unknown.map(|(segment, _)| segment).collect();
    let similar = similar_names(state, &unknown).await;
    let unknown = unknown.into_iter().zip(similar).map(|(segment, mut similar)| {
        similar.retain(|other| !segments.contains(other));
        UnknownName { name: segment.as_str(), similar }
    });
    Ok(unknown.collect())
}

/// Returns the problem of a count for readers of pages.
pub fn problem_of(error: OverlapError) -> Problem {
    match error {
        OverlapError::TooMany(refused) => error::too_many_comparisons(refused),
        error => error.into(),
    }
}
