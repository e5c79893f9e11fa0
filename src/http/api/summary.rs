//! `GET /segments/{name}`: summarizes a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use super::change::CountChange;
use crate::domain::SegmentName;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{StrictQuery, WindowQuery};
use crate::http::json::json;
use crate::http::percent::encoded;
use crate::http::problem::Result;
use crate::http::similar_names::similar_names;
use crate::http::state::AppState;

/// The summary of a segment.
#[derive(Serialize, ToSchema)]
struct Summary {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
    /// Known segments with similar names, the closest first, if this one is unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 3)]
    did_you_mean: Vec<String>,
    /// The number of users who were seen in the segment within the window.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    /// The change in the day before the last sample, over the configured window; null without a sample of that time, and
    /// for a day after a change of the window.
    #[schema(required)]
    change_1d: Option<CountChange>,
    /// The change in the week before the last sample, over the configured window; null without a sample of that time, and
    /// for a week after a change of the window.
    #[schema(required)]
    change_7d: Option<CountChange>,
    /// The time of the first sample of the history; null without samples.
    #[schema(required, format = DateTime)]
    first_sampled_at: Option<String>,
    /// The last sample of the history; null without samples.
    #[schema(required)]
    last_sample: Option<LastSample>,
    links: Links,
    #[serde(flatten)]
    as_of: AsOf,
}

/// The last sample of a history.
#[derive(Serialize, ToSchema)]
struct LastSample {
    /// The time at which the sample was due. The count was taken then or later, by up to a sixth of the sampling
    /// interval.
    #[schema(format = DateTime)]
    sampled_at: String,
    /// The number of users, over the configured window.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
}

/// Links to more about the segment, relative to the path of the summary.
#[derive(Serialize, ToSchema)]
struct Links {
    /// The count.
    count: String,
    /// The users by their last visit.
    histogram: String,
    /// The past counts.
    history: String,
    /// The page for people.
    page: String,
}

impl Links {
    fn of(segment: &SegmentName<'_>) -> Self {
        let name = encoded(segment.as_str());
        // Without `./`, a name with a colon would be read as a scheme.
        let link = |rest: &str| format!("./{name}/{rest}");
        Self {
            count: link("count"),
            histogram: link("histogram"),
            history: link("history"),
            page: format!("../pages/segment?name={name}"),
        }
    }
}

/// Summarize a segment.
///
/// An unknown segment counts 0 and has `known: false`, with up to three known segments with similar names. The changes
/// and the samples are over the configured window. To get the segment `batch`, write it as `%62atch`.
#[utoipa::path(
    get,
    path = "/segments/{name}",
    operation_id = "summarize_segment",
    tag = "counts",
    params(SegmentPath, WindowQuery),
    responses(
        (status = 200, description = "The summary.", body = Summary, example = json!({
            "segment": "sports", "known": true, "count": 42, "exact": true, "change_1d": { "absolute": -1, "relative": -0.0233, "from": "2026-11-21T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" },
            "change_7d": { "absolute": 2, "relative": 0.05, "from": "2026-11-15T10:00:00.000Z", "to": "2026-11-22T10:00:00.000Z" }, "first_sampled_at": "2026-09-01T00:00:00.000Z",
            "last_sample": { "sampled_at": "2026-11-22T10:00:00.000Z", "count": 42, "exact": true },
            "links": {
                "count": "./sports/count", "histogram": "./sports/histogram", "history": "./sports/history",
                "page": "../pages/segment?name=sports",
            },
            "window_seconds": 604800, "as_of": "2026-11-22T10:24:07.310Z",
        })),
        responses::CountProblems,
    )
)]
pub async fn summary(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    StrictQuery(WindowQuery { window }): StrictQuery<WindowQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let counted = state.estimator.estimate_with_changes(segment.clone().into_owned(), window, now).await?;
    let (count, changes) = (counted.count.unwrap_or_default(), counted.changes);
    let known = state.estimator.is_known(&segment, count.count() > 0).await?;
    let unknown = [&segment];
    let similar = similar_names(&state, if known { &[] } else { &unknown }).await.concat();
    Ok(json(&Summary {
        segment: segment.to_string(),
        known,
        did_you_mean: similar.iter().map(ToString::to_string).collect(),
        count: count.count(),
        accuracy: count.into(),
        change_1d: changes.day.map(CountChange::from),
        change_7d: changes.week.map(CountChange::from),
        first_sampled_at: changes.first_sampled_at.map(|at| at.to_string()),
        last_sample: changes.last_sample.map(|sample| LastSample {
            sampled_at: sample.at.to_string(),
            count: sample.count.count(),
            accuracy: sample.count.into(),
        }),
        links: Links::of(&segment),
        as_of: AsOf::new(window, now),
    }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("sports", "./sports/count")]
    #[case::slash_and_colon("a/b:c", "./a%2Fb%3Ac/count")]
    #[case::beyond_ascii("größe 5", "./gr%C3%B6%C3%9Fe%205/count")]
    fn links_encode_the_name(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(Links::of(&SegmentName::parse(name).unwrap()).count, expected);
    }
}
