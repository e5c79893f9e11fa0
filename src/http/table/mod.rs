//! Answers that are tables: JSON for programs, CSV for spreadsheets.

mod csv;
mod format;
mod links;
mod rows;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LINK, VARY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

pub use self::csv::{Cell, CsvWriter, json_list};
pub use self::format::Format;
pub use self::links::Cursors;
use self::links::links;
pub use self::rows::Row;
use super::json::json;

/// An answer that is a table as well.
pub trait Table: Serialize {
    /// The name of a downloaded file, without the segment and the date.
    const FILE_NAME: &'static str;

    /// Returns the time of the answer, in RFC 3339.
    fn as_of(&self) -> &str;

    /// Returns the segment that the whole table is about, for the name of the file.
    fn segment(&self) -> Option<&str> {
        None
    }

    /// Writes the header and the rows.
    fn write(&self, csv: &mut CsvWriter);

    /// Returns the cursors of the pages beside this one.
    fn cursors(&self) -> Cursors<'_> {
        Cursors::default()
    }
}

/// Responds with a table in the format that the caller wants.
pub struct TableResponder {
    pub format: Format,
    /// The query parameters of the request.
    pub parameters: Vec<(String, String)>,
}

impl TableResponder {
    /// Returns 200 with `table`.
    pub fn respond<T: Table>(&self, table: &T) -> Response {
        let mut response = match self.format {
            Format::Json => json(table),
            Format::Csv => csv_response(table),
        };
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept"));
        headers.extend(links(&self.parameters, table.cursors()).map(|links| (LINK, links)));
        response
    }
}

fn csv_response<T: Table>(table: &T) -> Response {
    let mut csv = CsvWriter::new();
    table.write(&mut csv);
    (csv_headers(T::FILE_NAME, table.segment(), table.as_of()), Body::from(csv.finish())).into_response()
}

/// Returns the headers of a file with a table, which is about `segment` or about several.
fn csv_headers(name: &str, segment: Option<&str>, as_of: &str) -> [(HeaderName, String); 3] {
    const DATE: usize = "2026-11-22".len();
    let date = as_of.get(..DATE).unwrap_or_default();
    let segment = segment.map(|segment| format!("{}-", file_name_part(segment))).unwrap_or_default();
    [
        (CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}-{segment}{date}.csv\"")),
    ]
}

/// Returns the part of a file's name for a segment. It is valid in a header and in every file system.
fn file_name_part(segment: &str) -> String {
    const MAX_LENGTH: usize = 64;
    let is_kept = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    segment.chars().take(MAX_LENGTH).map(|char| if is_kept(char) { char } else { '_' }).collect()
}
