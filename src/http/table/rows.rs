//! Tables that are sent row by row.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::csv::CsvWriter;
use super::format::Format;
use super::{TableResponder, csv_headers};
use crate::http::json::json_line;

/// A row of a table that is too long to be made at once.
pub trait Row: Serialize {
    /// The name of a downloaded file, without the segment and the date.
    const FILE_NAME: &'static str;

    /// Writes the row.
    fn write(&self, csv: &mut CsvWriter);
}

impl TableResponder {
    /// Returns 200 with `body`, which has rows about `segment`: as CSV, or one JSON object a line.
    pub fn respond_with_rows<R: Row>(&self, segment: &str, as_of: &str, body: Body) -> Response {
        let mut response = match self.format {
            Format::Json => {
                ([(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")], body).into_response()
            }
            Format::Csv => (csv_headers(R::FILE_NAME, Some(segment), as_of), body).into_response(),
        };
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        response
    }
}

impl Format {
    /// Returns the start of a table of rows with these columns.
    pub fn head(self, columns: &[&str]) -> Bytes {
        match self {
            Self::Json => Bytes::new(),
            Self::Csv => {
                let mut csv = CsvWriter::new();
                csv.row(columns.iter().copied());
                csv.finish().into()
            }
        }
    }

    /// Returns `rows` as text.
    pub fn rows<R: Row>(self, rows: &[R]) -> Bytes {
        match self {
            Self::Json => rows.iter().flat_map(json_line).collect(),
            Self::Csv => {
                let mut csv = CsvWriter::new();
                rows.iter().for_each(|row| row.write(&mut csv));
                csv.finish().into()
            }
        }
    }
}
