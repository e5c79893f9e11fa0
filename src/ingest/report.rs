//! What became of the visits of a batch.

use std::borrow::Cow;

use crate::domain::FieldError;
use crate::domain::visit_json::VisitError;

/// What became of the visits of a batch, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Visits that Redis has acknowledged.
    pub accepted: u64,
    /// Visits that lay outside the window already, and were not written.
    pub expired: u64,
    /// Lines that are not a visit, or whose segment would be one too many.
    pub rejected: u64,
    /// What is wrong with lines: the first [`Self::MAX_ERRORS`] errors that were found.
    pub errors: Vec<LineError>,
    /// Whether there were more.
    pub errors_truncated: bool,
    /// Every line up to this one was written, had expired, or is rejected for good. A sender that has to repeat may go
    /// on after it.
    pub done_through_line: u64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Counted from 1; in a JSON array the visit's place.
    pub line: u64,
    /// The field that is wrong, if it is one.
    pub field: Option<Cow<'static, str>>,
    /// What is wrong with it.
    pub detail: String,
}

impl LineError {
    /// What is wrong with `line` as a whole.
    #[must_use]
    pub fn of_line(line: u64, detail: String) -> Self {
        Self { line, field: None, detail }
    }

    /// `line` has more than `max_bytes` bytes.
    #[must_use]
    pub fn too_long(line: u64, max_bytes: usize) -> Self {
        Self::of_line(line, format!("is longer than {max_bytes} bytes"))
    }

    /// All that is wrong with the visit on `line`.
    pub fn all_of(line: u64, error: VisitError) -> impl Iterator<Item = Self> {
        let errors = match error {
            VisitError::Fields(errors) => {
                let of_field = |FieldError { field, detail }| Self { line, field: Some(field), detail };
                errors.into_iter().map(of_field).collect()
            }
            VisitError::SeveralValues(_) => vec![Self::of_line(line, format!("{error}; a line holds one visit"))],
            other => vec![Self::of_line(line, other.to_string())],
        };
        errors.into_iter()
    }
}

impl Report {
    /// How many errors are listed.
    pub const MAX_ERRORS: usize = 100;

    /// Whether there was something, and none of it was a visit.
    #[must_use]
    pub fn has_only_rejected(&self) -> bool {
        self.rejected > 0 && self.accepted == 0 && self.expired == 0
    }

    /// Whether there was the first line alone, and that one can't be read as a visit.
    #[must_use]
    pub fn is_one_line_without_a_visit(&self) -> bool {
        self.rejected == 1
            && self.has_only_rejected()
            && matches!(self.errors.as_slice(), [LineError { line: 1, field: None, .. }])
    }

    pub(super) fn reject(&mut self, line: u64, error: VisitError) {
        self.rejected += 1;
        LineError::all_of(line, error).for_each(|error| self.list(error));
    }

    pub(super) fn reject_too_long(&mut self, line: u64, max_bytes: usize) {
        self.rejected += 1;
        self.list(LineError::too_long(line, max_bytes));
    }

    /// The segment of `line` can't be taken.
    pub(super) fn reject_segment(&mut self, line: u64, why: String) {
        self.rejected += 1;
        self.list(LineError { line, field: Some("segment".into()), detail: format!("was not written: {why}") });
    }

    pub(super) fn list(&mut self, error: LineError) {
        if self.errors.len() < Self::MAX_ERRORS {
            self.errors.push(error);
        } else {
            self.errors_truncated = true;
        }
    }
}
