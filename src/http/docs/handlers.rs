//! Handlers of `/openapi.json` and of `/docs`, which is Swagger UI. All files are part of the binary.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use utoipa_swagger_ui::Config;

use super::openapi::{responses, schemas};
use crate::http::extract::if_none_match::IfNoneMatch;
use crate::http::problem::{Problem, Result};

/// The page, with the placeholder `{files}` for the path of its files.
const PAGE: &str = include_str!("page.html");
/// The script that starts Swagger UI.
const START: &str = include_str!("start.js");
const START_NAME: &str = "start.js";
/// Files of the page. All but the first come from Swagger UI.
const FILES: [&str; 4] = [START_NAME, "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];

schemas::schema_type!(DocsFile = schemas::one_of(FILES));

/// Restricts the page to this service. Swagger UI's style sheet contains icons as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Get this document.
///
/// OpenAPI 3.1 in JSON.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "documentation",
    responses(
        (status = 200, description = "The document.", body = Object, content_type = "application/json"),
        (status = 304, description = "The caller has the document: `If-None-Match` has its `ETag`."),
        responses::InternalProblem,
    )
)]
pub fn openapi(known: &IfNoneMatch, document: fn() -> String) -> Response {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    known.answer("application/json", DOCUMENT.get_or_init(|| document().into()).clone())
}

/// Show this document as a page.
///
/// The page makes no request to another host.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "documentation",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        responses::InternalProblem,
    )
)]
pub async fn page() -> Response {
    page_with_files_in("docs/")
}

/// Show the same page.
#[utoipa::path(
    get,
    path = "/docs/",
    operation_id = "docs_with_slash",
    tag = "documentation",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        responses::InternalProblem,
    )
)]
pub async fn page_with_slash() -> Response {
    page_with_files_in("")
}

/// Returns the page with relative paths, so that it works behind a proxy that adds a prefix.
fn page_with_files_in(folder: &str) -> Response {
    let page = PAGE.replace("{files}", folder);
    (HEADERS, [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")], page).into_response()
}

/// Get a file of the page.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "docs_file",
    tag = "documentation",
    params(("file" = inline(DocsFile), Path, description = "The file's name.", example = json!("start.js"))),
    responses(
        (status = 200, description = "The file. Those of Swagger UI are compressed with gzip.", content(
            (String = "text/javascript"), (String = "text/css"), ("image/png"),
        )),
        (status = 304, description = "The caller has the file: `If-None-Match` has its `ETag`."),
        responses::FileProblems,
    )
)]
pub async fn file(known: IfNoneMatch, Path(name): Path<String>) -> Result<Response> {
    if !FILES.contains(&name.as_str()) {
        return Err(Problem::not_found());
    }
    if name == START_NAME {
        return Ok((HEADERS, known.answer("text/javascript", START)).into_response());
    }
    let file = utoipa_swagger_ui::serve(&name, Arc::new(Config::default()));
    let file = file.ok().flatten().expect("Swagger UI has the file");
    let mut response = (HEADERS, known.answer(&file.content_type, file.bytes.into_owned())).into_response();
    if file.gzpipped && response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
