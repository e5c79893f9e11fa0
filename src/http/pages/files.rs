//! Static files of the pages: style sheet, refresh script and icon. They are part of the binary.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::response::HEADERS;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::problem::{Problem, Result};

/// Names, media types and contents.
const FILES: [(&str, &str, &str); 3] = [
    ("style.css", "text/css", include_str!("files/style.css")),
    ("refresh.js", "text/javascript", include_str!("files/refresh.js")),
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
        responses::PageFileProblems,
    )
)]
pub async fn file(Path(name): Path<String>) -> Result<Response> {
    let (_, media_type, content) = FILES.iter().find(|(known, ..)| *known == name).ok_or_else(Problem::not_found)?;
    // They change with the version only, so caches may store them, but must revalidate them.
    Ok((HEADERS, [(CONTENT_TYPE, *media_type), (CACHE_CONTROL, "no-cache")], *content).into_response())
}
