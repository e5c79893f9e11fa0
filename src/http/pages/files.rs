//! What the pages load: a style sheet, the script that refreshes them, the icon. All of it comes from this binary.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::response::HEADERS;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::problem::{Problem, Result};

/// Name, media type and content.
const FILES: [(&str, &str, &str); 3] = [
    ("style.css", "text/css", include_str!("files/style.css")),
    ("refresh.js", "text/javascript", include_str!("files/refresh.js")),
    ("icon.svg", "image/svg+xml", include_str!("files/icon.svg")),
];

/// Their names.
pub const NAMES: [&str; 3] = [FILES[0].0, FILES[1].0, FILES[2].0];

/// A file of the pages.
///
/// Everybody may have them: there are no numbers in them.
#[utoipa::path(
    get,
    path = "/pages/{file}",
    operation_id = "page_file",
    tag = "pages",
    params(("file" = inline(schemas::PagesFile), Path, description = "The file's name.", example = json!("style.css"))),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/css"), (String = "text/javascript"), (String = "image/svg+xml"),
        )),
        problems::OfAPagesFile,
    )
)]
pub async fn file(Path(name): Path<String>) -> Result<Response> {
    let (_, media_type, content) = FILES.iter().find(|(known, ..)| *known == name).ok_or_else(Problem::not_found)?;
    // They change with the version, so they may be kept, but have to be asked for.
    Ok((HEADERS, [(CONTENT_TYPE, *media_type), (CACHE_CONTROL, "no-cache")], *content).into_response())
}
