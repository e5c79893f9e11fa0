//! The problems that operations can meet, one answer for each status. Their examples are what the service renders.

use std::collections::BTreeMap;

use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Type};
use utoipa::{IntoResponses, Modify, PartialSchema, ToSchema};

use super::{examples, schemas};
use crate::http::batch_report::BatchReport;
use crate::http::problem::{Problem, ProblemDocument, ProblemKind, TYPE_PREFIX};

use ProblemKind::{
    BodyTimeout, BodyTooLarge, InsufficientScope, Internal, Invalid, Malformed, MethodNotAllowed, Misdirected,
    NotFound, Overloaded, RequestTimeout, Stopping, TooManyLists, TooManyOverlaps, TooManyRejected, TooManySegments,
    Unauthorized, Unavailable, UnsupportedMediaType,
};

/// The answers that several operations share: a name, what it tells, and the kinds it may be.
const SHARED: [(&str, &str, &[ProblemKind]); 16] = [
    ("Malformed", "The body can't be read: send JSON.", &[Malformed]),
    ("Unauthorized", "The request has no valid token.", &[Unauthorized]),
    ("InsufficientScope", "The token lacks the scope that this operation needs.", &[InsufficientScope]),
    ("NotFound", "No such path: correct it.", &[NotFound]),
    ("MethodNotAllowed", "The path has other methods, which `Allow` lists.", &[MethodNotAllowed]),
    ("BodyTimeout", "The body didn't arrive in time: send it faster.", &[BodyTimeout]),
    ("BodyTooLarge", "The body is too large.", &[BodyTooLarge]),
    ("UnsupportedMediaType", "The body is declared to be something else.", &[UnsupportedMediaType]),
    (
        "Misdirected",
        "The `Host` is none that the service answers for: see its setting `allowed_hosts`.",
        &[Misdirected],
    ),
    ("Invalid", "The request can be read and is not valid: correct what `errors` names.", &[Invalid]),
    (
        "InvalidVisit",
        "The visit is not valid: correct what `errors` names. Or its segment is new, and one too many.",
        &[Invalid, TooManySegments],
    ),
    ("TooMany", "Too many at a time: repeat after the seconds in `Retry-After`.", &[TooManyOverlaps]),
    ("TooManyLists", "Too many at a time: repeat after the seconds in `Retry-After`.", &[TooManyLists]),
    ("Internal", "The service failed: tell the operator the request id.", &[Internal]),
    ("Unavailable", "Not now: repeat after the seconds in `Retry-After`.", &[Unavailable, Overloaded, RequestTimeout]),
    ("NotReady", "Redis can't answer, or the service is stopping.", &[Unavailable, Stopping]),
];

/// The answers of a batch alone, as [`SHARED`].
const OF_A_BATCH: [(&str, &[ProblemKind]); 7] = [
    ("The body can't be read, or not to its end.", &[Malformed]),
    ("The request has no valid token, or none any longer: repeat with another one.", &[Unauthorized]),
    ("The token lacks the scope that this operation needs.", &[InsufficientScope]),
    ("The array didn't arrive in time, or no line was completed in time.", &[BodyTimeout]),
    (
        "The array has more than 1,000 visits or 1 MiB: send lines. Or the body unpacks to more than 200 times its size.",
        &[BodyTooLarge],
    ),
    (
        "The body is no array, none of the visits is valid, or so many are rejected that the rest was not read.",
        &[Invalid, TooManyRejected],
    ),
    (
        "Not now: repeat the lines after `done_through_line` after the seconds in `Retry-After`.",
        &[Unavailable, Overloaded, RequestTimeout, Stopping],
    ),
];

/// What may go wrong everywhere.
pub struct OfAnything;

impl IntoResponses for OfAnything {
    fn responses() -> Responses {
        shared(["Internal"])
    }
}

/// What may go wrong with a file that is asked for by its name.
pub struct OfAFile;

impl IntoResponses for OfAFile {
    fn responses() -> Responses {
        shared(["NotFound", "Internal"])
    }
}

/// What may go wrong with a single visit.
pub struct OfAVisit;

impl IntoResponses for OfAVisit {
    fn responses() -> Responses {
        let of_a_body = ["Malformed", "BodyTimeout", "BodyTooLarge", "UnsupportedMediaType", "InvalidVisit"];
        shared(of_a_body.into_iter().chain(["Internal", "Unavailable"]))
    }
}

/// What may go wrong with a batch. Once visits have been taken in, the problem has the report in it.
pub struct OfABatch;

impl IntoResponses for OfABatch {
    fn responses() -> Responses {
        let mut responses = shared(["UnsupportedMediaType", "Internal"]);
        for (description, kinds) in OF_A_BATCH {
            responses.insert(status(kinds), response(description, kinds, either(), examples::in_a_batch).into());
        }
        responses
    }
}

/// What may go wrong with a count.
pub struct OfACount;

impl IntoResponses for OfACount {
    fn responses() -> Responses {
        shared(["Invalid", "Internal", "Unavailable"])
    }
}

/// What may go wrong with what visits every segment: a list, or a request for a user.
pub struct OfAList;

impl IntoResponses for OfAList {
    fn responses() -> Responses {
        shared(["Invalid", "TooManyLists", "Internal", "Unavailable"])
    }
}

/// What may go wrong with a page, or with a file of one: that is a page itself.
pub struct OfAPage;

impl IntoResponses for OfAPage {
    fn responses() -> Responses {
        pages(&[
            ("The parameters are not valid.", &[Invalid]),
            ("The service failed: tell the operator the request id.", &[Internal]),
            ("There are no numbers now.", &[Unavailable, Overloaded, RequestTimeout]),
        ])
    }
}

/// What may go wrong with the page that lists segments.
pub struct OfAListPage;

impl IntoResponses for OfAListPage {
    fn responses() -> Responses {
        let too_many = pages(&[("Too many lists are asked for at a time.", &[TooManyLists])]);
        OfAPage::responses().into_iter().chain(too_many).collect()
    }
}

/// What may go wrong with the page of an overlap.
pub struct OfAnOverlapPage;

impl IntoResponses for OfAnOverlapPage {
    fn responses() -> Responses {
        let too_many = pages(&[("Too many are compared, or listed, at a time.", &[TooManyOverlaps, TooManyLists])]);
        OfAPage::responses().into_iter().chain(too_many).collect()
    }
}

/// What may go wrong with a file of the pages.
pub struct OfAPagesFile;

impl IntoResponses for OfAPagesFile {
    fn responses() -> Responses {
        pages(&[
            ("No such page or file.", &[NotFound]),
            ("The service failed: tell the operator the request id.", &[Internal]),
        ])
    }
}

/// What a page is when nobody may look at it.
pub fn of_a_closed_page() -> Responses {
    pages(&[
        ("There is no valid token. A browser asks for one, as a password.", &[Unauthorized]),
        ("The token lacks the scope that the pages need.", &[InsufficientScope]),
    ])
}

/// What may go wrong with an overlap.
pub struct OfAnOverlap;

impl IntoResponses for OfAnOverlap {
    fn responses() -> Responses {
        shared(["Invalid", "TooMany", "Internal", "Unavailable"])
    }
}

/// What may keep the service from being ready.
pub struct OfReadiness;

impl IntoResponses for OfReadiness {
    fn responses() -> Responses {
        shared(["Internal", "NotReady"])
    }
}

type Responses = BTreeMap<String, RefOr<Response>>;

/// These of the [`SHARED`] answers.
pub fn shared(names: impl IntoIterator<Item = &'static str>) -> Responses {
    let refer = |name: &str| {
        let (_, _, kinds) = SHARED.iter().find(|shared| shared.0 == name).expect("a shared answer has this name");
        (status(kinds), RefOr::Ref(Ref::from_response_name(name)))
    };
    names.into_iter().map(refer).collect()
}

/// Puts the shared answers into the document, and the schemas of problems.
pub struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, description, kinds) in SHARED {
            components.responses.insert(name.to_owned(), response(description, kinds, alone(), examples::alone).into());
        }
        let mut schemas = Vec::new();
        ProblemDocument::schemas(&mut schemas);
        components.schemas.extend(schemas);
        let mut problem = object(ProblemDocument::schema());
        if let Some(RefOr::T(Schema::Object(kind))) = problem.properties.get_mut("type") {
            kind.enum_values = Some(types().map(Into::into).collect());
        }
        components.schemas.insert("Problem".to_owned(), problem.clone().into());
        let batch_problem = schemas::batch_problem(problem, object(BatchReport::schema()));
        components.schemas.insert("BatchProblem".to_owned(), batch_problem.into());
        for operation in document.paths.paths.values_mut().flat_map(super::operations) {
            let is_page = operation.tags.iter().flatten().any(|tag| tag == "pages");
            let page = || pages(&[("The address is none that the service answers for.", &[Misdirected])]);
            operation.responses.responses.extend(if is_page { page() } else { shared(["Misdirected"]) });
        }
    }
}

fn object(schema: RefOr<Schema>) -> Object {
    match schema {
        RefOr::T(Schema::Object(object)) => object,
        _ => unreachable!("a struct's schema is an object"),
    }
}

/// The types of all problems: there is no kind that no answer may be.
fn types() -> impl Iterator<Item = String> {
    let mut all: Vec<ProblemKind> = Vec::new();
    let kinds = SHARED.iter().map(|(_, _, kinds)| kinds).chain(OF_A_BATCH.iter().map(|(_, kinds)| kinds));
    for kind in kinds.copied().flatten() {
        if !all.contains(kind) {
            all.push(*kind);
        }
    }
    all.into_iter().map(|kind| format!("{TYPE_PREFIX}{}", kind.describe().1))
}

fn status(kinds: &[ProblemKind]) -> String {
    kinds[0].status().as_str().to_owned()
}

/// A problem.
fn alone() -> RefOr<Schema> {
    Ref::from_schema_name("Problem").into()
}

/// A problem with or without the report of a batch. The first is one of the second, too.
fn either() -> RefOr<Schema> {
    AnyOfBuilder::new().item(Ref::from_schema_name("BatchProblem")).item(alone()).into()
}

/// The answer of these kinds, which have one status, with an example of each.
fn response(
    description: &str,
    kinds: &[ProblemKind],
    schema: RefOr<Schema>,
    example: fn(ProblemKind) -> Problem,
) -> Response {
    let examples = kinds.iter().map(|kind| {
        let (_, slug, title) = kind.describe();
        let problem = example(*kind);
        let value = serde_json::to_value(problem.document("2429c179-26f3-4909-b0a2-af9e9e98fca8"));
        let value = value.expect("a problem serializes");
        (slug, ExampleBuilder::new().summary(title).value(Some(value)).build())
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let response = ResponseBuilder::new().description(description).content("application/problem+json", content);
    with_headers(response, kinds[0]).build()
}

/// The pages that these problems are.
fn pages(problems: &[(&str, &[ProblemKind])]) -> Responses {
    let pages = problems.iter().map(|(description, kinds)| {
        let text = ContentBuilder::new().schema(Some(Object::with_type(Type::String))).build();
        let page = ResponseBuilder::new().description(*description).content("text/html", text);
        (status(kinds), with_headers(page, kinds[0]).build().into())
    });
    pages.collect()
}

fn with_headers(mut response: ResponseBuilder, kind: ProblemKind) -> ResponseBuilder {
    for (name, schema, description) in headers(kind) {
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description));
        response = response.header(name, header.build());
    }
    response
}

/// The headers that come with a kind.
fn headers(kind: ProblemKind) -> Vec<(&'static str, Object, &'static str)> {
    let text = || Object::with_type(Type::String);
    let seconds = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
    match kind {
        Unauthorized | InsufficientScope => {
            vec![("www-authenticate", text(), "The scheme that is wanted: `Bearer`, or on a page `Basic`.")]
        }
        MethodNotAllowed => vec![("allow", text(), "The methods that the path has.")],
        TooManyOverlaps | TooManyLists | Unavailable | Overloaded | RequestTimeout | Stopping => {
            vec![("retry-after", seconds(), "When to come again, in seconds.")]
        }
        _ => Vec::new(),
    }
}
