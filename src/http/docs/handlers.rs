//! Handlers of `/openapi.json` and of `/docs`, which is Swagger UI. All files are part of the binary.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use maud::html;
use utoipa_swagger_ui::Config;

use super::openapi::{responses, schemas};
use crate::http::extract::if_none_match::IfNoneMatch;
use crate::http::pages::BasePath;
use crate::http::pages::layout::{self, Counts, Page, Refresh};
use crate::http::problem::{Problem, Result};

/// Files of the page, each with its media type and content, or `None` for a file of Swagger UI.
const FILES: [(&str, Option<(&str, &str)>); 4] = [
    ("docs.css", Some(("text/css", include_str!("files/docs.css")))),
    ("start.js", Some(("text/javascript", include_str!("files/start.js")))),
    ("accessibility.js", Some(("text/javascript", include_str!("files/accessibility.js")))),
    ("swagger-ui-bundle.js", None),
];

schemas::schema_type!(DocsFile = schemas::one_of(FILES.map(|(name, _)| name)));

/// Restricts the page to this service.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
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
        (status = 304, description = "The caller has the page: `If-None-Match` has its `ETag`."),
        responses::InternalProblem,
    )
)]
pub async fn page(known: IfNoneMatch) -> Response {
    page_in(BasePath::Root, "docs/", &known)
}

/// Show the same page.
#[utoipa::path(
    get,
    path = "/docs/",
    operation_id = "docs_with_slash",
    tag = "documentation",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        (status = 304, description = "The caller has the page: `If-None-Match` has its `ETag`."),
        responses::InternalProblem,
    )
)]
pub async fn page_with_slash(known: IfNoneMatch) -> Response {
    page_in(BasePath::Depth(1), "", &known)
}

/// Returns the page with the links of a page in `base`, and with the files in the folder `docs`.
fn page_in(base: BasePath, docs: &str, known: &IfNoneMatch) -> Response {
    let files = html! {
        link rel="stylesheet" href={ (docs) "docs.css" };
        script src={ (docs) "swagger-ui-bundle.js" } defer {}
        script src={ (docs) "start.js" } defer {}
        script src={ (docs) "accessibility.js" } defer {}
    };
    let main = html! {
        h1 { "API" }
        p .lead {
            "Version " (env!("CARGO_PKG_VERSION")) " · "
            a href={ (base.root()) "openapi.json" } { "OpenAPI document" }
        }
        noscript { p .nothing { "To show the calls, this page needs JavaScript." } }
        div #swagger-ui {}
    };
    let page = layout::page_with_files(base, Page::Docs, "API", &files, Refresh::Never, Counts::None, &main);
    (HEADERS, known.answer("text/html; charset=utf-8", page.into_string())).into_response()
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
            (String = "text/javascript"), (String = "text/css"),
        )),
        (status = 304, description = "The caller has the file: `If-None-Match` has its `ETag`."),
        responses::FileProblems,
    )
)]
pub async fn file(known: IfNoneMatch, Path(name): Path<String>) -> Result<Response> {
    let (_, own) = FILES.into_iter().find(|(file, _)| *file == name).ok_or_else(Problem::not_found)?;
    if let Some((media_type, content)) = own {
        return Ok((HEADERS, known.answer(media_type, content)).into_response());
    }
    let file = utoipa_swagger_ui::serve(&name, Arc::new(Config::default()));
    let file = file.ok().flatten().expect("Swagger UI has the file");
    let mut response = (HEADERS, known.answer(&file.content_type, file.bytes.into_owned())).into_response();
    if file.gzpipped && response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
