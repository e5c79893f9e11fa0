//! The outermost middleware: assigns the request id and renders problems.
//!
//! It wraps the router instead of being one of its layers. Layers cost each request a boxed future and several clones,
//! which was a tenth of the service's time for a small request.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::ready;
use tower_service::Service as _;

use super::request_id::{self, REQUEST_ID};
use crate::http::json::json_line;
use crate::http::pages::{self, BasePath};
use crate::http::problem::{Problem, ProblemKind};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Seconds until a retry. Every request tries to reach Redis, so a longer wait has no benefit.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Passes `request` to `router`, or takes the response to a refused `Host`. Renders a problem of either as JSON or, if
/// the request is for a page, as a page.
///
/// Adds the request id to the response, and forbids browsers to guess the type of the body: JSON with a name in it must
/// not be taken for a page.
///
/// An async fn would hold the request a second time, beside the router's future.
pub fn answer(router: Result<Router, Box<Response>>, mut request: Request) -> impl Future<Output = Response> + use<> {
    let request_id = request_id::of(request.headers());
    let method = request.method().clone();
    if method == Method::DELETE || request.uri().path().ends_with("/users") {
        // Handlers of deletions and of lists of users log it.
        request.headers_mut().insert(REQUEST_ID, request_id.clone());
    }
    let page = pages::base_path(&method, request.uri().path());
    let response = match router {
        Ok(mut router) => router.call(request).map(|Ok(response)| response).left_future(),
        Err(refusal) => ready(*refusal).right_future(),
    };
    response.map(move |mut response| {
        if let Some(mut problem) = Problem::take_from(&mut response) {
            // The router knows the methods of the path, the fallback doesn't.
            if problem.kind() == ProblemKind::MethodNotAllowed
                && let Some(methods) = response.headers().get(ALLOW).and_then(|methods| methods.to_str().ok())
            {
                problem = problem.with_detail(format!("The methods of this path are {}.", methods.replace(',', ", ")));
            }
            let id = request_id.to_str().unwrap_or_default();
            log(&problem, id, &method);
            // A handler may answer as a page on any path.
            let page = page.or_else(|| response.extensions_mut().remove::<BasePath>());
            render(&problem, id, page, &mut response);
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id);
        if headers.contains_key(CONTENT_TYPE) {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    })
}

/// Logs `problem`: a failure of the service as an error, everything else for debugging. Failures of Redis are logged
/// where they occur.
fn log(problem: &Problem, request_id: &str, method: &Method) {
    let (status, route) = (problem.status().as_u16(), problem.route());
    let error = problem.cause().map(tracing::field::display);
    if problem.kind() == ProblemKind::Internal {
        tracing::error!(request_id, %method, route, status, error, "{}", problem.detail());
    } else {
        // The detail contains names from the request. A line feed in one would start a new line of the log.
        let detail = || problem.detail().replace(char::is_control, "\u{fffd}");
        tracing::debug!(request_id, %method, route, status, error, "{}", detail());
    }
}

/// Turns `response` into the document of `problem`, or into its page at `page`. Keeps other headers, such as `Allow`
/// and those of CORS.
fn render(problem: &Problem, request_id: &str, page: Option<BasePath>, response: &mut Response) {
    let status = problem.status();
    *response.status_mut() = status;
    let form = response.extensions_mut().remove();
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    // Caches may store 404, 405 and 414 without it (RFC 9111, section 4.2.2).
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if let Some(challenge) = problem.challenge() {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    *response.body_mut() = match page {
        Some(page) => pages::error::body(problem, request_id, form, page, headers),
        None => {
            headers.insert(CONTENT_TYPE, PROBLEM_JSON);
            Body::from(json_line(&problem.document(request_id)))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::Captured;

    #[test]
    fn debug_log_has_one_line_for_a_detail_with_line_feeds() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let forged = "x\n2026-11-28T10:00:00Z  INFO deleted a user\r\u{85}";
        let problem = Problem::invalid_field(forged, "is not a field of a visit");
        tracing::subscriber::with_default(subscriber.finish(), || log(&problem, "id", &Method::POST));
        let mut response = Response::default();
        render(&problem, "id", None, &mut response);
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let lines = captured.lines();
        assert!(
            lines.len() == 1 && lines[0].contains("INFO deleted a user") && !lines[0].contains('\u{85}'),
            "{lines:?}"
        );
    }
}
