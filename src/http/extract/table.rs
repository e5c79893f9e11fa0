//! The query of an operation whose answer is a table.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use utoipa::IntoParams;

use super::query::{Parameters, QueryParams};
use crate::http::docs::openapi::schemas;
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;
use crate::http::table::{Format, TableResponder};

schemas::schema_type!(FormatName = schemas::one_of(["json", "csv"]));

/// The parameter `format`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct FormatParam {
    /// The format of the answer. It takes precedence over `Accept`. Without either, the answer is JSON.
    #[param(inline, value_type = Option<FormatName>, example = "json")]
    format: Format,
}

/// Returns whether a request is for a table as CSV.
pub fn wants_csv(parts: &Parts) -> bool {
    let format = Parameters::of(&parts.uri).and_then(|query| format(&query, &parts.headers));
    format.is_ok_and(|format| format == Format::Csv)
}

fn format(query: &Parameters, headers: &HeaderMap) -> Result<Format> {
    Ok(query.one("format", Format::parse)?.unwrap_or_else(|| Format::negotiate(headers)))
}

/// Extracts the query parameters `Q` and the format of the answer, and refuses all other parameters.
pub struct TableQuery<Q>(pub Q, pub TableResponder);

impl<Q: QueryParams> FromRequestParts<Arc<AppState>> for TableQuery<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self> {
        let query = Parameters::of(&parts.uri)?;
        query.check_names(&[Q::NAMES, &["format"]].concat())?;
        let format = format(&query, &parts.headers)?;
        Ok(Self(Q::parse(&query, state)?, TableResponder { format, parameters: query.into_pairs() }))
    }
}
