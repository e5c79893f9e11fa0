//! Assembles the OpenAPI document from the routes.

use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Type};
use utoipa::{__dev, IntoResponses, OpenApi, PartialSchema, Path, ToSchema};

use super::examples;
use super::flatten::{flatten_members, object};
use super::responses::{
    self, AuthProblems, BATCH, MisdirectedPage, MisdirectedProblem, PageAuthProblems, SHARED, with_headers,
};
use crate::auth::Scope;
use crate::http::batch_report::BatchReport;
use crate::http::problem::{KindDescription, Problem, ProblemDocument, ProblemKind, TYPE_PREFIX};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Segment estimator",
        description = include_str!("description.md"),
        license(name = "MIT", identifier = "MIT"),
    ),
    // Relative to the document, so that requests of Swagger UI keep the prefix of a proxy.
    servers((url = "./")),
    tags(
        (name = "visits", description = "Record visits of users to segments."),
        (name = "counts", description = "Count the users in segments."),
        (name = "segments", description = "Delete segments."),
        (name = "users", description = "Show and delete the data of a user."),
        (name = "operation", description = "Probes and metrics."),
        (name = "pages", description = "HTML pages with the numbers. Their errors are pages, too."),
        (name = "documentation", description = "This document."),
    ),
)]
struct Base;

const PAGES_TAG: &str = "pages";
const BATCH_OPERATION: &str = "record_batch";
const BEARER: &str = "bearer";
const PASSWORD: &str = "password";

type NamedSchemas = Vec<(String, RefOr<Schema>)>;

/// What `#[utoipa::path]` generates for a handler.
pub trait Documented: Path + __dev::SchemaReferences + __dev::Tags<'static> {}

impl<P: Path + __dev::SchemaReferences + __dev::Tags<'static>> Documented for P {}

/// A route of the document.
pub struct RouteDoc {
    pub path: &'static str,
    method: HttpMethod,
    /// Scope that the operation requires if access control is configured.
    scope: Option<Scope>,
    operation: fn() -> Operation,
    schemas: fn(&mut NamedSchemas),
}

impl RouteDoc {
    /// Returns the description `P` of a route.
    ///
    /// # Panics
    ///
    /// If `P` describes another method or path.
    pub fn of<P: Documented>(method: HttpMethod, path: &'static str, scope: Option<Scope>) -> Self {
        assert_eq!(P::path(), path, "the attribute of the handler has another path");
        assert!(P::methods() == [method.clone()], "{path}: the attribute of the handler has another method");
        let operation = || {
            let mut operation = P::operation();
            operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
            operation
        };
        Self { path, method, scope, operation, schemas: P::schemas }
    }
}

/// Returns the document of `routes` as pretty-printed JSON.
pub fn to_json<'a>(routes: impl Iterator<Item = &'a RouteDoc>) -> String {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    let mut schemas = NamedSchemas::new();
    ProblemDocument::schemas(&mut schemas);
    for route in routes {
        (route.schemas)(&mut schemas);
        document.paths.add_path_operation(route.path, vec![route.method.clone()], operation(route));
    }
    components.schemas.extend(schemas);
    flatten_members(components);
    add_problems(components);
    add_security_schemes(components);
    add_request_id(components);
    document.info.description.as_mut().map(join_lines);
    let mut json = document.to_pretty_json().expect("a document serializes");
    json.push('\n');
    json
}

/// Returns the operation of `route`, with what its attribute leaves out.
fn operation(route: &RouteDoc) -> Operation {
    let mut operation = (route.operation)();
    let is_page = operation.tags.iter().flatten().any(|tag| tag == PAGES_TAG);
    let responses = &mut operation.responses.responses;
    responses.extend(if is_page { MisdirectedPage::responses() } else { MisdirectedProblem::responses() });
    if operation.operation_id.as_deref() == Some(BATCH_OPERATION) {
        for (description, kinds) in BATCH {
            let schema = AnyOfBuilder::new().item(Ref::from_schema_name("BatchProblem")).item(problem_schema());
            let response = response(description, kinds, schema.into(), examples::of_batch);
            responses.insert(responses::status(kinds), response.into());
        }
    }
    if let Some(scope) = route.scope {
        let problems = if is_page { PageAuthProblems::responses() } else { AuthProblems::responses() };
        for (status, response) in problems {
            // A batch has its own.
            responses.entry(status).or_insert(response);
        }
        let token = |scheme| SecurityRequirement::new(scheme, [scope.as_str()]);
        let mut security = vec![SecurityRequirement::default(), token(BEARER)];
        // Every operation with this scope is a GET.
        security.extend((scope == Scope::ReadSegments).then(|| token(PASSWORD)));
        operation.security = Some(security);
    }
    responses.values_mut().for_each(add_request_id_header);
    responses.values_mut().for_each(add_table_headers);
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameter.description.as_mut().map(join_lines);
        }
    }
    operation.description.as_mut().map(join_lines);
    operation
}

/// Adds the shared responses and the schemas of problems.
fn add_problems(components: &mut Components) {
    for (name, description, kinds) in SHARED {
        let response = response(description, kinds, problem_schema(), examples::of_request);
        components.responses.insert(name.to_owned(), response.into());
    }
    let mut problem = object(ProblemDocument::schema());
    if let Some(RefOr::T(Schema::Object(kind))) = problem.properties.get_mut("type") {
        kind.enum_values = Some(problem_types().map(Into::into).collect());
    }
    components.schemas.insert("Problem".to_owned(), problem.clone().into());
    let batch_problem = batch_problem(problem, object(BatchReport::schema()));
    components.schemas.insert("BatchProblem".to_owned(), batch_problem.into());
}

/// Returns the types of all problems that an operation may answer.
fn problem_types() -> impl Iterator<Item = String> {
    let kinds = SHARED.iter().map(|(_, _, kinds)| kinds).chain(BATCH.iter().map(|(_, kinds)| kinds));
    let mut all: Vec<ProblemKind> = Vec::new();
    for kind in kinds.copied().flatten() {
        if !all.contains(kind) {
            all.push(*kind);
        }
    }
    all.into_iter().map(|kind| format!("{TYPE_PREFIX}{}", kind.describe().slug))
}

fn problem_schema() -> RefOr<Schema> {
    Ref::from_schema_name("Problem").into()
}

/// Merges the schemas of a problem and of a report.
fn batch_problem(mut problem: Object, report: Object) -> Object {
    let line = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).description(Some(
        "The lines up to this one need no repetition. The lines after it may or may not have been written.",
    ));
    problem.description = Some("An error of a batch, with the report so far.".to_owned());
    problem.properties.extend(report.properties);
    problem.required.extend(report.required);
    problem.properties.insert("done_through_line".to_owned(), line.into());
    problem.required.push("done_through_line".to_owned());
    problem
}

/// Returns the response of problem kinds with one status, with an example of each.
fn response(
    description: &str,
    kinds: &[ProblemKind],
    schema: RefOr<Schema>,
    example: fn(ProblemKind) -> Problem,
) -> Response {
    let examples = kinds.iter().map(|kind| {
        let KindDescription { slug, title, .. } = kind.describe();
        let problem = example(*kind);
        let value = serde_json::to_value(problem.document("2429c179-26f3-4909-b0a2-af9e9e98fca8"));
        let value = value.expect("a problem serializes");
        (slug, ExampleBuilder::new().summary(title).value(Some(value)).build())
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let response = ResponseBuilder::new().description(description).content("application/problem+json", content);
    with_headers(response, kinds[0]).build()
}

fn add_security_schemes(components: &mut Components) {
    let description = "A token, if the service is configured to require one.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    let description = "The same token as the password, with any user name. Accepted for reading segments only.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some(description)).build();
    components.add_security_scheme(PASSWORD, SecurityScheme::Http(scheme));
}

/// Adds the request id to the shared responses.
fn add_request_id(components: &mut Components) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
    let description =
        "The id that the request had in this header, if it was 1 to 128 visible ASCII characters, or a new one.";
    let header = HeaderBuilder::new().schema(Some(text.pattern(Some("^[!-~]+$")))).description(Some(description));
    components.headers.insert("RequestId".to_owned(), RefOr::T(header.build()));
    components.responses.values_mut().for_each(add_request_id_header);
}

fn add_request_id_header(response: &mut RefOr<Response>) {
    // A referenced response has the header where it is defined.
    if let RefOr::T(response) = response {
        let header = Ref::new("#/components/headers/RequestId");
        response.headers.insert("x-request-id".to_owned(), RefOr::Ref(header));
    }
}

/// Adds the headers of a table to a response that may be CSV.
fn add_table_headers(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    if !response.content.contains_key("text/csv") {
        return;
    }
    let headers = [
        ("vary", "`accept`, since it chooses the format."),
        ("content-disposition", "The name of the file, with the date, if the answer is CSV."),
    ];
    for (name, description) in headers {
        let text = Object::with_type(Type::String);
        let header = HeaderBuilder::new().schema(Some(text)).description(Some(description));
        response.headers.insert(name.to_owned(), RefOr::T(header.build()));
    }
}

/// Joins the lines of each paragraph, because some readers show line breaks of the source.
fn join_lines(description: &mut String) {
    let paragraphs = description.split("\n\n").map(|paragraph| paragraph.trim().replace('\n', " "));
    *description = paragraphs.collect::<Vec<_>>().join("\n\n");
}
