//! The document of a problem.

use serde::Serialize;
use utoipa::ToSchema;

use super::kind::{KindDescription, ProblemKind};
use crate::domain::FieldError;
use crate::http::batch_report::BatchReport;
use crate::ingest::Report;

/// Prefix of every problem type.
pub const TYPE_PREFIX: &str = "urn:segment-estimator:problem:";

/// An error: the members of RFC 9457, section 3, and extensions.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// The kind of problem, for programs.
    r#type: String,
    /// The kind of problem, for people.
    pub title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request, and what to do.
    pub detail: &'a str,
    /// The id of the request, as in the header `x-request-id` and in the service's log.
    #[schema(min_length = 1, max_length = 128)]
    pub request_id: &'a str,
    /// The errors of each field or parameter, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    errors: Vec<FieldErrorDocument<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    report: Option<BatchReport<'a>>,
}

impl<'a> ProblemDocument<'a> {
    pub(super) fn new(
        kind: ProblemKind,
        detail: &'a str,
        request_id: &'a str,
        errors: &'a [FieldError],
        report: Option<&'a Report>,
    ) -> Self {
        let KindDescription { status, slug, title } = kind.describe();
        let errors = errors.iter().map(|error| FieldErrorDocument { field: &error.field, detail: &error.detail });
        Self {
            r#type: format!("{TYPE_PREFIX}{slug}"),
            title,
            status: status.as_u16(),
            detail,
            request_id,
            errors: errors.collect(),
            report: report.map(BatchReport::of_incomplete),
        }
    }
}

/// An error of a field.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
struct FieldErrorDocument<'a> {
    /// The name of the field or parameter.
    field: &'a str,
    /// What is wrong, as a predicate without its subject.
    detail: &'a str,
}
