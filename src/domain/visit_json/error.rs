//! Why bytes are not a visit.

use crate::domain::FieldError;

/// Why bytes are not a visit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisitError {
    /// They are not JSON.
    #[error("{0}")]
    NotJson(String),
    /// They are several JSON values. The second begins at this byte, counted from 1.
    #[error("more than one JSON value; another begins at column {0}")]
    SeveralValues(usize),
    /// They are JSON of this kind, not an object.
    #[error("it must be one object with user_id, segment or segments, and optionally seen_at, not {0}")]
    NotAnObject(&'static str),
    /// They are an object with these mistakes.
    #[error("{}", FieldError::list(.0))]
    Fields(Vec<FieldError>),
}

impl VisitError {
    /// Returns the label of a metric.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotJson(_) | Self::SeveralValues(_) => "not_json",
            Self::NotAnObject(_) => "not_an_object",
            Self::Fields(_) => "fields",
        }
    }
}
