//! The report on a batch.

use std::borrow::Cow;
use std::fmt::Display;

use crate::domain::FieldError;
use crate::domain::visit_json::VisitError;

/// The outcome of the visits of a batch, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Visits that Redis acknowledged.
    pub accepted: u64,
    /// Visits outside the window, which were not written.
    pub expired: u64,
    /// Lines that are not valid, and visits whose segment would exceed the limit.
    pub rejected: u64,
    /// The first [`Self::MAX_ERRORS`] errors.
    pub errors: Vec<LineError>,
    /// Whether there were more errors.
    pub errors_truncated: bool,
    /// Every line up to this one was written, expired or permanently rejected. A retry may start after it.
    pub done_through_line: u64,
    /// Whether the batch was only validated. `accepted` then counts valid visits, which were not written.
    pub dry_run: bool,
}

/// A mistake in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, or of the visit in a JSON array, counted from 1.
    pub line: u64,
    /// The field, unless the mistake concerns the whole line.
    pub field: Option<Cow<'static, str>>,
    /// The predicate of a sentence about the field or the line.
    pub detail: String,
}

impl LineError {
    /// Creates an error about the whole line.
    #[must_use]
    pub fn of_line(line: u64, detail: String) -> Self {
        Self { line, field: None, detail }
    }

    /// Creates the error for a line of more than `max_bytes` bytes.
    #[must_use]
    pub fn too_long(line: u64, max_bytes: usize) -> Self {
        Self::of_line(line, format!("is longer than {max_bytes} bytes"))
    }

    /// Returns whether the mistake is in one segment of the line. Any other mistake is in all visits of the line.
    pub(crate) fn is_of_segment(&self) -> bool {
        self.field.as_deref().is_some_and(|field| field == "segment" || field.starts_with("segments["))
    }

    /// Returns all mistakes in the visit on `line`.
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
    /// The limit on listed errors.
    pub const MAX_ERRORS: usize = 100;

    /// Returns whether the batch had lines, and none of them was a visit.
    #[must_use]
    pub fn has_only_rejected(&self) -> bool {
        self.rejected > 0 && self.accepted == 0 && self.expired == 0
    }

    /// Returns whether the batch was a single line that can't be parsed as a visit.
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

    /// Rejects a visit of `line` because of its segment, which is `field`.
    pub(super) fn reject_segment(&mut self, line: u64, field: Cow<'static, str>, why: impl Display) {
        self.rejected += 1;
        self.list(LineError { line, field: Some(field), detail: format!("was not written: {why}") });
    }

    pub(super) fn list(&mut self, error: LineError) {
        if self.errors.len() < Self::MAX_ERRORS {
            self.errors.push(error);
        } else {
            self.errors_truncated = true;
        }
    }
}
