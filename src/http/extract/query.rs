//! Extractors of query parameters. Those of the API are strict: a misspelled name would silently change the meaning of a
//! request.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use utoipa::IntoParams;

use super::time::QueryTime;
use crate::domain::{SegmentName, Window};
use crate::estimator::overlap::{Audience, Overlaps};
use crate::http::docs::openapi::schemas;
use crate::http::percent::decodes_to_utf8;
use crate::http::problem::{Problem, ProblemKind, Result};
use crate::http::state::AppState;

/// Query parameters of an operation.
pub trait QueryParams: Sized {
    /// Names of the parameters, the fields that `IntoParams` documents, in their order. Any other name is an error for
    /// [`StrictQuery`].
    ///
    /// A new parameter needs its field, its name here and a line in [`Self::parse`]; `tests/it/contracts/openapi.rs`
    /// compares the first two. Its documents are docs/questions.md and CHANGELOG.md.
    const NAMES: &'static [&'static str];

    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the first invalid parameter.
    fn parse(query: &Parameters, state: &AppState) -> Result<Self>;
}

/// Extracts the query parameters `Q` and refuses all others.
pub struct StrictQuery<Q>(pub Q);

impl<Q: QueryParams> FromRequestParts<Arc<AppState>> for StrictQuery<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self> {
        let query = Parameters::of(&parts.uri)?;
        query.check_names(Q::NAMES)?;
        Ok(Self(Q::parse(&query, state)?))
    }
}

/// Extracts the query parameters `Q` and ignores all others.
pub struct LenientQuery<Q>(pub Q);

impl<Q: QueryParams> FromRequestParts<Arc<AppState>> for LenientQuery<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self> {
        Ok(Self(Q::parse(&Parameters::of(&parts.uri)?, state)?))
    }
}

/// Query of an operation without parameters.
pub struct NoParams;

impl QueryParams for NoParams {
    const NAMES: &'static [&'static str] = &[];

    fn parse(_: &Parameters, _: &AppState) -> Result<Self> {
        Ok(Self)
    }
}

/// Query of an operation whose only parameter is the window.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WindowQuery {
    /// Count over this window instead of the configured one, which is the longest allowed.
    #[param(inline, value_type = Option<schemas::Window>, example = "7d")]
    pub window: Window,
}

impl QueryParams for WindowQuery {
    const NAMES: &'static [&'static str] = &["window"];

    fn parse(query: &Parameters, state: &AppState) -> Result<Self> {
        Ok(Self { window: query.window(state)? })
    }
}

/// Query parameters, not parsed yet.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Returns the query parameters of `uri`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the query can't be decoded.
    pub fn of(uri: &Uri) -> Result<Self> {
        if uri.query().is_none() {
            return Ok(Self(Vec::new()));
        }
        // The decoder would replace other bytes, and the name of a segment would become another one.
        if !uri.query().is_none_or(decodes_to_utf8) {
            return Err(Problem::new(ProblemKind::Invalid, "The query must be UTF-8, percent-encoded."));
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::new(ProblemKind::Invalid, error.body_text()))?;
        Ok(Self(pairs))
    }

    /// Returns the names and values.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// Checks that each parameter has one of `names`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for the first other one.
    pub fn check_names(&self, names: &[&str]) -> Result<()> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let known = match names {
                    [] => "there are none".to_owned(),
                    [only] => format!("the only one is {only}"),
                    names => format!("the parameters are {}", names.join(", ")),
                };
                Err(Problem::invalid_field(name.clone(), format!("is not a parameter of this path; {known}")))
            }
        }
    }

    /// Returns the parsed value of the parameter `name`, or `None` if the query does not have it. An error of `parse`
    /// is a predicate such as "must be a number".
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the parameter is repeated, or `parse` fails.
    pub fn one<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        let mut values = self.all(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::invalid_field(name, "is given more than once"));
        }
        parse(value).map(Some).map_err(|why| Problem::invalid_field(name, why))
    }

    /// Returns the values of the parameter `name`, which may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Returns the parameter `name` as a number from 1 to `max`.
    ///
    /// # Errors
    ///
    /// See [`Self::one`].
    pub fn number(&self, name: &'static str, max: usize) -> Result<Option<usize>> {
        self.one(name, |text| {
            let number = text.parse().ok().filter(|number| (1..=max).contains(number));
            number.ok_or_else(|| format!("must be a number from 1 to {max}"))
        })
    }

    /// Returns whether the parameter `name` is `true`. Without it, the answer is false.
    ///
    /// # Errors
    ///
    /// See [`Self::one`].
    pub fn flag(&self, name: &'static str) -> Result<bool> {
        let flag = self.one(name, |text| text.parse().map_err(|_| "must be true or false".to_owned()))?;
        Ok(flag.unwrap_or(false))
    }

    /// Returns the parameter `window`, or the configured window.
    ///
    /// # Errors
    ///
    /// See [`Self::one`].
    pub fn window(&self, state: &AppState) -> Result<Window> {
        Ok(self.one("window", Window::parse)?.unwrap_or(state.estimator.window()))
    }

    /// Returns the parameter `name` as a time.
    ///
    /// # Errors
    ///
    /// See [`Self::one`].
    pub fn time(&self, name: &'static str) -> Result<Option<QueryTime>> {
        self.one(name, QueryTime::parse)
    }

    /// Returns the values of the parameter `segment`: `min` to `max` different names, in the order of the query.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if there are too few, too many, an invalid or a repeated name.
    pub fn segments(&self, min: usize, max: usize) -> Result<Vec<SegmentName<'static>>> {
        let count = self.all("segment").count();
        if count < min || count > max {
            let why = format!("must be given {min} to {max} times, as segment=a&segment=b, not {count}");
            return Err(Problem::invalid_field("segment", why));
        }
        different_segments(self.all("segment"))
    }
}

/// Parses the names of segments.
///
/// # Errors
///
/// A [`Problem`] for the first invalid or repeated name.
pub fn different_segments<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<SegmentName<'static>>> {
    let mut segments: Vec<SegmentName<'static>> = Vec::new();
    for name in names {
        let segment = SegmentName::parse(name.to_owned())?;
        if segments.contains(&segment) {
            return Err(Problem::invalid_field("segment", format!("contains {name:?} more than once")));
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// The parameters of an audience, each a list of segments.
pub const AUDIENCE_PARAMETERS: [&str; 3] = ["all", "any", "none"];

/// Parses an audience from the names in each of [`AUDIENCE_PARAMETERS`].
///
/// # Errors
///
/// A [`Problem`] if there are too many, an invalid or a repeated name.
pub fn audience(lists: [&[&str]; 3]) -> Result<Audience> {
    const MAX: usize = Overlaps::MAX_SEGMENTS;
    let count: usize = lists.iter().map(|names| names.len()).sum();
    if count > MAX {
        let [first, others @ ..] = AUDIENCE_PARAMETERS;
        let why = format!("must have at most {MAX} segments together with {}, not {count}", others.join(" and "));
        return Err(Problem::invalid_field(first, why));
    }
    let mut segments = [const { Vec::new() }; 3];
    for (index, (parameter, names)) in AUDIENCE_PARAMETERS.into_iter().zip(lists).enumerate() {
        for &name in names {
            let segment =
                SegmentName::parse(name.to_owned()).map_err(|error| Problem::invalid_field(parameter, error.detail))?;
            match segments.iter().position(|list| list.contains(&segment)) {
                None => segments[index].push(segment),
                Some(same) if same == index => {
                    return Err(Problem::invalid_field(parameter, format!("contains {name:?} more than once")));
                }
                Some(other) => {
                    let why = format!("contains {name:?}, which {} contains too", AUDIENCE_PARAMETERS[other]);
                    return Err(Problem::invalid_field(parameter, why));
                }
            }
        }
    }
    let [all, any, none] = segments;
    Ok(Audience { all, any, none })
}
