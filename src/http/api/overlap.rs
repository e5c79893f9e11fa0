//! `GET /overlap`: counts the users that segments have in common.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::{Accuracy, error_95};
use super::as_of::AsOf;
use crate::domain::{Estimate, SegmentName, Window};
use crate::estimator::overlap::Overlaps;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::query::{Parameters, QueryParams};
use crate::http::extract::table::{FormatParam, TableQuery};
use crate::http::problem::Result;
use crate::http::state::AppState;
use crate::http::table::{CsvWriter, Table, json_list};
use crate::store;

/// The number of users that segments have in common.
#[derive(Serialize, ToSchema)]
struct Overlap<'a> {
    /// The segments, in the order of the query.
    #[schema(min_items = 2, max_items = 8)]
    segments: Vec<OverlapSegment<'a>>,
    /// Whether all numbers are exact. If false, they are estimates from the samples of the segments.
    exact: bool,
    /// The number of users in at least one of the segments: the size of the union.
    any: u64,
    /// The error of `any`, as that of a count. Absent if it is exact, or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, exclusive_minimum = 0)]
    any_error_95: Option<f64>,
    /// The number of users in all of the segments: the size of the intersection.
    all: u64,
    /// The error of `all`, as that of a count. Absent if it is exact, or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, exclusive_minimum = 0)]
    all_error_95: Option<f64>,
    /// The intersections of all pairs.
    #[schema(min_items = 1, max_items = 28)]
    pairs: Vec<OverlapPair<'a>>,
    /// How many users are in exactly each combination of the segments: the largest first, without combinations that no
    /// user is in. Each user is in one of them, so they add up to `any`.
    #[schema(max_items = 255)]
    regions: Vec<OverlapRegion<'a>>,
    #[serde(flatten)]
    as_of: AsOf,
}

impl Table for Overlap<'_> {
    const FILE_NAME: &'static str = "overlap";

    fn as_of(&self) -> &str {
        self.as_of.as_of()
    }

    /// Writes a row for each region. A column for each segment is 1 if the users are in it, and 0 if they aren't, so
    /// that a spreadsheet can add up the regions of any pair.
    fn write(&self, csv: &mut CsvWriter) {
        let names = self.segments.iter().map(|counted| counted.segment);
        let columns: Vec<_> = names.clone().map(|name| format!("in:{name}")).collect();
        let columns = columns.iter().map(String::as_str).chain(["segments", "count"]);
        csv.row(columns.chain(Accuracy::COLUMNS).chain(["unknown"]).chain(AsOf::COLUMNS));
        let unknown = json_list(&OverlapSegment::unknown(&self.segments));
        for OverlapRegion { r#in, count, accuracy } in &self.regions {
            let flags = names.clone().map(|name| u64::from(r#in.contains(&name)).into());
            let counted = flags.chain([(r#in.len() as u64).into(), (*count).into()]);
            let counted = counted.chain(Accuracy::cells(Some(accuracy)));
            csv.row(counted.chain([unknown.as_str().into()]).chain(self.as_of.cells()));
        }
    }
}

/// A segment of an overlap.
#[derive(Serialize, ToSchema)]
pub(super) struct OverlapSegment<'a> {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: &'a str,
    /// The number of users in the segment.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    #[schema(schema_with = schemas::known)]
    known: bool,
}

impl<'a> OverlapSegment<'a> {
    /// Returns the members of `segments`, which are names with their counts.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub(super) async fn of_each(
        state: &AppState,
        segments: &[(&'a SegmentName<'static>, Estimate)],
    ) -> std::result::Result<Vec<Self>, store::Error> {
        let counted: Vec<_> = segments.iter().map(|(segment, count)| (*segment, count.count() > 0)).collect();
        let known = state.estimator.are_known(&counted).await?;
        let segments = segments.iter().zip(known);
        Ok(segments
            .map(|(&(segment, count), known)| Self {
                segment: segment.as_str(),
                count: count.count(),
                accuracy: count.into(),
                known,
            })
            .collect())
    }

    /// Returns the names of the unknown ones.
    pub(super) fn unknown(segments: &[Self]) -> Vec<&'a str> {
        segments.iter().filter(|counted| !counted.known).map(|counted| counted.segment).collect()
    }
}

/// A pair of segments.
#[derive(Serialize, ToSchema)]
struct OverlapPair<'a> {
    /// The names of the two segments.
    #[schema(min_items = 2, max_items = 2)]
    segments: [&'a str; 2],
    /// The number of users in both.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
}

/// A combination of the segments.
#[derive(Serialize, ToSchema)]
struct OverlapRegion<'a> {
    /// The names of the segments, in the order of the query. The users are in no other segment of the query.
    #[schema(min_items = 1, max_items = 8)]
    r#in: Vec<&'a str>,
    /// The number of users in all of these and in no other.
    #[schema(minimum = 1)]
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OverlapQuery {
    /// The segments: 2 to 8 different ones, as `segment=a&segment=b`.
    #[param(inline, value_type = schemas::OverlapSegments, style = Form, explode, example = json!(["sports", "news"]))]
    segment: Vec<SegmentName<'static>>,
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    window: Window,
}

impl QueryParams for OverlapQuery {
    const NAMES: &'static [&'static str] = &["segment", "window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self {
            segment: query.segments(Overlaps::MIN_SEGMENTS, Overlaps::MAX_SEGMENTS)?,
            window: query.window(state)?,
        })
    }
}

/// Count the users that segments have in common.
///
/// The numbers are exact for the time when the read began, unless a segment keeps a sample of its users: `exact` is
/// then false, and each number has an error of its own. They are consistent with each other because one read determines
/// all of them. An unknown segment counts 0 and has `known: false`. In CSV, `unknown` lists these names. A user who is
/// first seen, expires or is deleted during the read may or may not count. A read takes some seconds for millions of
/// users. It works in small slices that do not delay other requests. The number of concurrent overlaps is limited.
#[utoipa::path(
    get,
    path = "/overlap",
    operation_id = "overlap",
    tag = "counts",
    params(OverlapQuery, FormatParam),
    responses(
        (status = 200, description = "The numbers.", content(
            (Overlap = "application/json", example = json!({
                "segments": [
                    { "segment": "sports", "count": 42, "exact": true, "known": true },
                    { "segment": "news", "count": 30, "exact": true, "known": true },
                ],
                "exact": true,
                "any": 60,
                "all": 12,
                "pairs": [{ "segments": ["sports", "news"], "count": 12, "exact": true }],
                "regions": [
                    { "in": ["sports"], "count": 30, "exact": true },
                    { "in": ["news"], "count": 18, "exact": true },
                    { "in": ["sports", "news"], "count": 12, "exact": true },
                ],
                "window_seconds": 604800,
                "as_of": "2026-11-22T10:00:00.000Z",
            })),
            (String = "text/csv", example = json!(concat!(
                "in:sports,in:news,segments,count,exact,error_95,unknown,window_seconds,as_of\r\n",
                "1,0,1,30,true,,[],604800,2026-11-22T10:00:00.000Z\r\n",
                "0,1,1,18,true,,[],604800,2026-11-22T10:00:00.000Z\r\n",
                "1,1,2,12,true,,[],604800,2026-11-22T10:00:00.000Z\r\n",
            ))),
        )),
        responses::OverlapProblems,
    )
)]
pub async fn overlap(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    TableQuery(OverlapQuery { segment: segments, window }, responder): TableQuery<OverlapQuery>,
) -> Result<Response> {
    let now = Arc::clone(&state).shared_now();
    let (overlap, as_of) = state.overlaps.overlap(&segments, window, now).await?;
    let name = |index: usize| segments[index].as_str();
    let counted: Vec<_> = segments.iter().zip(overlap.counts).collect();
    let pairs = overlap.pairs.iter();
    let regions = overlap.regions.iter();
    Ok(responder.respond(&Overlap {
        segments: OverlapSegment::of_each(&state, &counted).await?,
        exact: overlap.any.is_exact(),
        any: overlap.any.count(),
        any_error_95: error_95(overlap.any),
        all: overlap.all.count(),
        all_error_95: error_95(overlap.all),
        pairs: pairs
            .map(|pair| OverlapPair {
                segments: [name(pair.first), name(pair.second)],
                count: pair.both.count(),
                accuracy: pair.both.into(),
            })
            .collect(),
        regions: regions
            .map(|region| OverlapRegion {
                r#in: region.segments().map(name).collect(),
                count: region.count.count(),
                accuracy: region.count.into(),
            })
            .collect(),
        as_of: AsOf::new(window, as_of),
    }))
}
