//! The parameters of a question, read strictly: one that is misspelt would otherwise give the answer to another question
//! without a word.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::domain::{SegmentName, Timestamp, Window};
use crate::http::problem::{Problem, ProblemKind, Result};

/// The query of a request as it came. A handler takes it as an argument, and says with [`Self::knowing`] which parameters there are.
pub struct RawQuery(std::result::Result<Vec<(String, String)>, String>);

/// The parameters of a question, all of which have a name that it knows.
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for RawQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let query = Query::try_from_uri(&parts.uri);
        Ok(Self(query.map(|Query(pairs)| pairs).map_err(|error| error.body_text())))
    }
}

impl RawQuery {
    /// The parameters of `question`, which has those in `names`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the first parameter that it doesn't have.
    pub fn knowing(self, question: &str, names: &[&str]) -> Result<Parameters> {
        let given = self.0.map_err(|why| Problem::new(ProblemKind::Invalid, why))?;
        match given.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(Parameters(given)),
            Some((name, _)) => {
                let known = match names {
                    [] => "it has none".to_owned(),
                    [only] => format!("the only one is {only}"),
                    names => format!("those are {}", names.join(", ")),
                };
                Err(Problem::invalid_field(name.clone(), format!("is not a parameter of {question}; {known}")))
            }
        }
    }
}

impl Parameters {
    /// Those that have a value. Forms send the fields that were left empty, too.
    #[must_use]
    pub fn filled(self) -> Self {
        Self(self.0.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The parameter `name`, if it is given.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it is given more than once, or `parse` refuses it with a sentence without its subject.
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

    /// The values of the parameter `name`, which may be given several times.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The number that the parameter `name` gives: 1 to `most`.
    ///
    /// # Errors
    ///
    /// As [`Self::one`].
    pub fn number(&self, name: &'static str, most: usize) -> Result<Option<usize>> {
        self.one(name, |text| {
            let number = text.parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("must be a number from 1 to {most}"))
        })
    }

    /// The window that is asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::one`].
    pub fn window(&self) -> Result<Option<Window>> {
        self.one("window", Window::parse)
    }

    /// The point in time that the parameter `name` gives.
    ///
    /// # Errors
    ///
    /// As [`Self::one`].
    pub fn time(&self, name: &'static str) -> Result<Option<Timestamp>> {
        self.one(name, |text| {
            let seconds = || text.parse().ok().filter(|seconds: &f64| seconds.abs() <= 1e11);
            let time = Timestamp::from_rfc3339(text).or_else(|| seconds().map(Timestamp::from_unix_seconds));
            time.ok_or_else(|| {
                "must be Unix seconds or an RFC 3339 time such as 2026-11-22T10:00:00Z (a + in it is written %2B)"
                    .to_owned()
            })
        })
    }

    /// The segments that are asked for, in their order: `least` of them at the least, and `most` at the most.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when there are too few or too many, when one is no segment's name, or is given more than once.
    pub fn segments(&self, least: usize, most: usize) -> Result<Vec<SegmentName<'static>>> {
        let given: Vec<_> = self.all("segment").collect();
        if given.len() < least || given.len() > most {
            let given = given.len();
            return Err(Problem::invalid_field(
                "segment",
                format!("must be given {least} to {most} times, and is given {given} times"),
            ));
        }
        let mut segments: Vec<SegmentName<'static>> = Vec::with_capacity(given.len());
        for name in given {
            let segment = SegmentName::parse(name.to_owned()).map_err(Problem::from)?;
            if segments.contains(&segment) {
                return Err(Problem::invalid_field(
                    "segment",
                    format!("has {segment:?} more than once", segment = segment.as_str()),
                ));
            }
            segments.push(segment);
        }
        Ok(segments)
    }
}
