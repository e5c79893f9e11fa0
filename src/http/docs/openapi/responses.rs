//! Responses with problems, as sets that operations share.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Type};

use crate::http::problem::ProblemKind;

use ProblemKind::{
    BodyTimeout, BodyTooLarge, InsufficientScope, Internal, Invalid, Malformed, MethodNotAllowed, Misdirected,
    NotFound, Overloaded, RequestTimeout, Sampled, SomeRejected, Stopping, TooManyLists, TooManyMemberLists,
    TooManyOverlaps, TooManyRejected, TooManySegments, Unauthorized, Unavailable, UnsupportedMediaType,
};

/// Responses of several operations: name, description and kinds of problem.
pub const SHARED: [(&str, &str, &[ProblemKind]); 18] = [
    ("Malformed", "The body can't be read: send JSON.", &[Malformed]),
    ("Unauthorized", "The request has no valid token.", &[Unauthorized]),
    ("InsufficientScope", "The token lacks the scope that this operation needs.", &[InsufficientScope]),
    ("NotFound", "No such path: correct it.", &[NotFound]),
    ("MethodNotAllowed", "The path does not have this method; `Allow` lists those it has.", &[MethodNotAllowed]),
    ("BodyTimeout", "The body didn't arrive in time: send it faster.", &[BodyTimeout]),
    ("BodyTooLarge", "The body is too large.", &[BodyTooLarge]),
    ("UnsupportedMediaType", "The media type or content encoding is not supported.", &[UnsupportedMediaType]),
    ("Misdirected", "The `Host` is not allowed: see the setting `allowed_hosts`.", &[Misdirected]),
    ("Invalid", "The request is not valid: correct what `errors` names.", &[Invalid]),
    (
        "InvalidVisit",
        "The visit is not valid: correct what `errors` names. Or it would create a segment beyond the limit.",
        &[Invalid, TooManySegments],
    ),
    (
        "InvalidOrSampled",
        "The request is not valid: correct what `errors` names. Or the segment keeps a sample: ask for it with `sample=true`.",
        &[Invalid, Sampled],
    ),
    ("TooMany", "Too many at a time: repeat after the seconds in `Retry-After`.", &[TooManyOverlaps]),
    ("TooManyLists", "Too many at a time: repeat after the seconds in `Retry-After`.", &[TooManyLists]),
    ("TooManyMemberLists", "Too many at a time: repeat after the seconds in `Retry-After`.", &[TooManyMemberLists]),
    ("Internal", "The service failed: tell the operator the request id.", &[Internal]),
    ("Unavailable", "Not now: repeat after the seconds in `Retry-After`.", &[Unavailable, Overloaded, RequestTimeout]),
    ("NotReady", "Redis can't answer, or the service is stopping.", &[Unavailable, Stopping]),
];

/// Responses of the batch operation only: description and kinds of problem.
pub const BATCH: [(&str, &[ProblemKind]); 7] = [
    ("The body can't be read, or not to its end.", &[Malformed]),
    ("The request has no valid token, or the token expired: repeat with another one.", &[Unauthorized]),
    ("The token lacks the scope that this operation needs.", &[InsufficientScope]),
    ("The array didn't arrive in time, or no line was completed in time.", &[BodyTimeout]),
    (
        "The array has more than 1,000 visits or 1 MiB: send lines. Or the body decompresses to more than 200 times its size.",
        &[BodyTooLarge],
    ),
    (
        "The body is no array, no visit is valid, the batch was aborted because too many lines were rejected, or some were and \
         `strict=true` asks for an error.",
        &[Invalid, SomeRejected, TooManyRejected],
    ),
    (
        "Not now: repeat the lines after `done_through_line` after the seconds in `Retry-After`.",
        &[Unavailable, Overloaded, RequestTimeout, Stopping],
    ),
];

type Responses = BTreeMap<String, RefOr<Response>>;

/// Declares a set of responses.
macro_rules! response_set {
    ($(#[$doc:meta])* $name:ident = $responses:expr) => {
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> Responses {
                $responses
            }
        }
    };
}

response_set!(InternalProblem = shared(["Internal"]));
response_set!(FileProblems = shared(["NotFound", "Internal"]));
response_set!(ReadinessProblems = shared(["Internal", "NotReady"]));
response_set!(CountProblems = shared(["Invalid", "Internal", "Unavailable"]));
response_set!(
    /// For operations that visit every segment.
    ListProblems = shared(["Invalid", "TooManyLists", "Internal", "Unavailable"])
);
response_set!(MemberListProblems = shared(["InvalidOrSampled", "TooManyMemberLists", "Internal", "Unavailable"]));
response_set!(OverlapProblems = shared(["Invalid", "TooMany", "Internal", "Unavailable"]));
response_set!(
    VisitProblems = shared([
        "Malformed",
        "BodyTimeout",
        "BodyTooLarge",
        "UnsupportedMediaType",
        "InvalidVisit",
        "Internal",
        "Unavailable",
    ])
);
response_set!(
    /// The document adds those of [`BATCH`], whose examples contain reports.
    BatchProblems = shared(["UnsupportedMediaType", "Internal"])
);
response_set!(
    PageProblems = pages(&[
        ("The parameters are not valid.", &[Invalid]),
        ("The service failed: tell the operator the request id.", &[Internal]),
        ("There are no numbers now.", &[Unavailable, Overloaded, RequestTimeout]),
    ])
);
response_set!(ListPageProblems = page_or(&[("Too many lists are in progress.", &[TooManyLists])]));
response_set!(
    OverlapPageProblems =
        page_or(&[("Too many comparisons or lists are in progress.", &[TooManyOverlaps, TooManyLists])])
);
response_set!(
    PageFileProblems = pages(&[
        ("No such page or file.", &[NotFound]),
        ("The service failed: tell the operator the request id.", &[Internal]),
    ])
);
response_set!(
    /// For pages that need a token.
    PageAuthProblems = pages(&[
        ("There is no valid token. A browser asks for one, as a password.", &[Unauthorized]),
        ("The token lacks the scope that the pages need.", &[InsufficientScope]),
    ])
);
response_set!(
    /// For operations that need a token.
    AuthProblems = shared(["Unauthorized", "InsufficientScope"])
);
response_set!(MisdirectedPage = pages(&[("The host of the address is not allowed.", &[Misdirected])]));
response_set!(MisdirectedProblem = shared(["Misdirected"]));

/// Returns references to these of the [`SHARED`] responses.
fn shared<const N: usize>(names: [&'static str; N]) -> Responses {
    let refer = |name: &str| {
        let (_, _, kinds) = SHARED.iter().find(|shared| shared.0 == name).expect("a shared response has this name");
        (status(kinds), RefOr::Ref(Ref::from_response_name(name)))
    };
    names.into_iter().map(refer).collect()
}

/// Returns responses that are error pages.
fn pages(problems: &[(&str, &[ProblemKind])]) -> Responses {
    let pages = problems.iter().map(|(description, kinds)| {
        let text = ContentBuilder::new().schema(Some(Object::with_type(Type::String))).build();
        let page = ResponseBuilder::new().description(*description).content("text/html", text);
        (status(kinds), with_headers(page, kinds[0]).build().into())
    });
    pages.collect()
}

fn page_or(problems: &[(&str, &[ProblemKind])]) -> Responses {
    PageProblems::responses().into_iter().chain(pages(problems)).collect()
}

/// Returns the status of problem kinds that share one.
pub fn status(kinds: &[ProblemKind]) -> String {
    kinds[0].status().as_str().to_owned()
}

/// Adds the headers of problems of this kind.
pub fn with_headers(response: ResponseBuilder, kind: ProblemKind) -> ResponseBuilder {
    let text = || Object::with_type(Type::String);
    let seconds = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
    let (name, schema, description) = match kind {
        Unauthorized | InsufficientScope => (
            "www-authenticate",
            text(),
            "The required scheme: `Bearer`, or `Basic` for a page, a link that a browser follows, and a table as CSV.",
        ),
        MethodNotAllowed => ("allow", text(), "The methods of the path."),
        TooManyOverlaps | TooManyLists | TooManyMemberLists | Unavailable | Overloaded | RequestTimeout | Stopping => {
            ("retry-after", seconds(), "The seconds to wait before a retry.")
        }
        _ => return response,
    };
    response.header(name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build())
}
