//! `/docs`: the OpenAPI document as a page, by Swagger UI. All of it comes from this binary.

pub mod openapi;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use utoipa_swagger_ui::Config;

use self::openapi::{problems, schemas};
use super::problem::{Problem, Result};

/// The page, with `{files}` where the path of the folder of its files belongs.
const PAGE: &str = include_str!("page.html");
/// What the page loads: all but the first belong to Swagger UI.
pub(super) const FILES: [&str; 4] = [START_NAME, "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];
const START_NAME: &str = "start.js";
/// Starts Swagger UI.
const START: &str = include_str!("start.js");

/// Lets the page speak to nobody but this service. Swagger UI has its icons in its style sheet, as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// This document as a page.
///
/// A browser shows it without a request to another host.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "documentation",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        problems::OfAnything,
    )
)]
pub async fn page() -> Response {
    page_with_files_in("docs/")
}

/// The same page.
#[utoipa::path(
    get,
    path = "/docs/",
    operation_id = "docs_with_slash",
    tag = "documentation",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        problems::OfAnything,
    )
)]
pub async fn page_with_slash() -> Response {
    page_with_files_in("")
}

/// The paths in the page are relative, so that it works behind a proxy that adds a prefix.
fn page_with_files_in(folder: &str) -> Response {
    let page = PAGE.replace("{files}", folder);
    (HEADERS, [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")], page).into_response()
}

/// A file of the page.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "docs_file",
    tag = "documentation",
    params(("file" = inline(schemas::DocsFile), Path, description = "The file's name.", example = json!("start.js"))),
    responses(
        (status = 200, description = "The file. Those of Swagger UI are compressed with gzip.", content(
            (String = "text/javascript"), (String = "text/css"), ("image/png"),
        )),
        problems::OfAFile,
    )
)]
pub async fn file(Path(name): Path<String>) -> Result<Response> {
    if !FILES.contains(&name.as_str()) {
        return Err(Problem::not_found());
    }
    if name == START_NAME {
        return Ok((HEADERS, [(CONTENT_TYPE, "text/javascript"), (CACHE_CONTROL, "no-cache")], START).into_response());
    }
    let file = utoipa_swagger_ui::serve(&name, Arc::new(Config::default()));
    let file = file.ok().flatten().expect("Swagger UI has the file");
    // They change with the version of this service only, and are large.
    let headers = [(CONTENT_TYPE, file.content_type.as_str()), (CACHE_CONTROL, "public, max-age=86400")];
    let mut response = (HEADERS, headers, Body::from(file.bytes.into_owned())).into_response();
    if file.gzpipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
