//! Static files of the pages: style sheet, scripts and icon. They are part of the binary.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};

use super::response::HEADERS;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::if_none_match::IfNoneMatch;
use crate::http::problem::{Problem, Result};

/// Names, media types and contents.
const FILES: [(&str, &str, &str); 7] = [
    ("style.css", "text/css", include_str!("files/style.css")),
    ("pages.js", "text/javascript", include_str!("files/pages.js")),
    ("back.js", "text/javascript", include_str!("files/back.js")),
    ("charts.js", "text/javascript", include_str!("files/charts.js")),
    ("refresh.js", "text/javascript", include_str!("files/refresh.js")),
    ("selection.js", "text/javascript", include_str!("files/selection.js")),
    ("icon.svg", "image/svg+xml", include_str!("files/icon.svg")),
];

schemas::schema_type!(PageFile = schemas::one_of(FILES.map(|(name, ..)| name)));

/// Get a file of the pages.
///
/// The files need no token: they contain no numbers.
#[utoipa::path(
    get,
    path = "/pages/{file}",
    operation_id = "page_file",
    tag = "pages",
    params(("file" = inline(PageFile), Path, description = "The file's name.", example = json!("style.css"))),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/css"), (String = "text/javascript"), (String = "image/svg+xml"),
        )),
        (status = 304, description = "The caller has the file: `If-None-Match` has its `ETag`."),
        responses::PageFileProblems,
    )
)]
pub async fn file(known: IfNoneMatch, Path(name): Path<String>) -> Result<Response> {
    let (_, media_type, content) = FILES.iter().find(|(file, ..)| *file == name).ok_or_else(Problem::not_found)?;
    Ok((HEADERS, known.answer(media_type, *content)).into_response())
}
