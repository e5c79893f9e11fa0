//! The OpenAPI document: put together from what stands at the handlers and at the types of their answers.
//!
//! `schemas.rs` has the schemas of what is parsed by hand, `problems.rs` the errors, `examples.rs` one of each kind,
//! `security.rs` what needs a token.

mod examples;
pub(crate) mod problems;
pub(crate) mod schemas;
mod security;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::handler::Handler;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::{ObjectBuilder, PathItem, Ref, RefOr, Type};
use utoipa::{Modify, OpenApi};

use self::problems::Problems;
use self::security::Security;
use crate::http::api::{batch, health, histogram, history, lists, metrics, overlap, segments, users};
use crate::http::{AppState, docs, pages};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Segment estimator",
        description = include_str!("description.md"),
        license(name = "MIT", identifier = "MIT"),
    ),
    paths(
        segments::record,
        batch::record,
        segments::count,
        lists::list,
        lists::counts,
        histogram::of_segment,
        history::of_segment,
        overlap::overlap,
        users::segments,
        users::forget,
        health::live,
        health::ready,
        metrics::metrics,
        handler,
        docs::page,
        docs::page_with_slash,
        docs::file,
        pages::of_list,
        pages::of_segment,
        pages::of_overlap,
        pages::file,
    ),
    tags(
        (name = "visits", description = "Users were seen in segments."),
        (name = "counts", description = "How many users are in a segment."),
        (name = "users", description = "What is kept of a user, and having it deleted."),
        (name = "operation", description = "What the service's surroundings ask."),
        (name = "pages", description = "Pages for people who look at the numbers. Their errors are pages, too."),
        (name = "documentation", description = "This document."),
    ),
    modifiers(&Problems, &Security, &RequestIds, &Paragraphs),
)]
struct Document;

/// The document as JSON with line breaks.
#[must_use]
pub fn to_json() -> String {
    let mut json = Document::openapi().to_pretty_json().expect("a document serializes");
    json.push('\n');
    json
}

/// This document.
///
/// OpenAPI 3.1 in JSON.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "documentation",
    responses(
        (status = 200, description = "The document.", body = Object, content_type = "application/json"),
        problems::OfAnything,
    )
)]
pub fn handler() -> impl Handler<((),), Arc<AppState>> {
    let document = Bytes::from(to_json());
    async move || {
        // It changes with the version, so it may be kept, but has to be asked for.
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
        (headers, Body::from(document.clone())).into_response()
    }
}

/// Every answer has a request id.
struct RequestIds;

impl RequestIds {
    const HEADER: &str = "x-request-id";

    fn add_to(response: &mut RefOr<Response>) {
        // What is only referred to has it where it stands.
        if let RefOr::T(response) = response {
            let header = Ref::new("#/components/headers/RequestId");
            response.headers.insert(Self::HEADER.to_owned(), RefOr::Ref(header));
        }
    }
}

impl Modify for RequestIds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
        let description = "The request's own, if it had one of up to 128 visible ASCII characters, or a new one.";
        let header = HeaderBuilder::new().schema(Some(text.pattern(Some("^[!-~]+$")))).description(Some(description));
        components.headers.insert("RequestId".to_owned(), RefOr::T(header.build()));
        components.responses.values_mut().for_each(Self::add_to);
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            operation.responses.responses.values_mut().for_each(Self::add_to);
        }
    }
}

/// Has each paragraph of a description in one line: some readers show a line break where the source has one.
struct Paragraphs;

impl Modify for Paragraphs {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let operations = document.paths.paths.values_mut().flat_map(operations);
        let descriptions = operations.map(|operation| &mut operation.description);
        for description in descriptions.chain([&mut document.info.description]).flatten() {
            let paragraphs = description.split("\n\n").map(|paragraph| paragraph.trim().replace('\n', " "));
            *description = paragraphs.collect::<Vec<_>>().join("\n\n");
        }
    }
}

/// The operations of a path.
fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten()
}
