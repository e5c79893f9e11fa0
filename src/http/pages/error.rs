//! Error pages: a problem as HTML, without figures.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use maud::{Markup, PreEscaped, html};

use super::layout::{self, Counts, Page, Refresh};
use super::links::{BasePath, page_of};
use super::names::visible;
use super::response::{HEADERS, HTML};
use crate::estimator::TooMany;
use crate::http::problem::{Problem, ProblemKind};

/// Form below an error message, so that the user can correct the input.
#[derive(Debug, Clone)]
pub struct Form(Box<str>);

/// Problem of a page with a form.
#[derive(Debug)]
pub struct FormProblem {
    problem: Problem,
    form: Option<Form>,
}

impl FormProblem {
    pub fn new(problem: impl Into<Problem>, form: Markup) -> Self {
        Self { problem: problem.into(), form: Some(Form(form.into_string().into())) }
    }
}

impl<E: Into<Problem>> From<E> for FormProblem {
    fn from(error: E) -> Self {
        Self { problem: error.into(), form: None }
    }
}

impl IntoResponse for FormProblem {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(form) = self.form {
            response.extensions_mut().insert(form);
        }
        response
    }
}

/// Returns the problem of a comparison that was refused, for readers of pages.
pub fn too_many_comparisons(refused: TooMany) -> Problem {
    Problem::from(refused).with_detail(format!("{} are running.", refused.max))
}

/// Returns the response for a person who opened `path`, which no route has. Suggests the page of the route `nearest`.
pub fn not_found(path: &str, nearest: Option<&str>) -> Response {
    let problem = Problem::not_found();
    let nearest = nearest.map(page_of);
    let mut response = match &nearest {
        Some(page) => problem.suggesting(page),
        None => problem,
    }
    .into_response();
    // A path that is too deep for relative links has no page.
    if let Some(base) = BasePath::of(path) {
        response.extensions_mut().insert(base);
    }
    response
}

/// Renders `problem` as the body of a page in `base`, with `form` below the message. Adds the headers of a page.
pub fn body(problem: &Problem, request_id: &str, form: Option<Form>, base: BasePath, headers: &mut HeaderMap) -> Body {
    let (kind, status) = (problem.kind(), problem.status().as_u16());
    headers.extend(HEADERS);
    headers.insert(CONTENT_TYPE, HTML);
    // An overlap that took too long would take as long again.
    let is_lasting = kind == ProblemKind::RequestTimeout && form.is_some();
    let is_temporary = [503, 429].contains(&status) && !is_lasting;
    let refresh = if is_temporary { Refresh::Periodic } else { Refresh::Never };
    let title = match title(kind) {
        // The user has typed it.
        Some(_) if kind == ProblemKind::Invalid && form.is_some() => "Check your choice",
        title => title.unwrap_or(kind.describe().title),
    };
    let main = html! {
        div .error #error {
            h1 { (title) }
            // The detail may contain parameter names from the request.
            @if let Some(path) = problem.suggestion() {
                p #suggestion { "Did you mean " a href={ (base.root()) (path.trim_start_matches('/')) } { (visible(path)) } "?" }
            } @else { p { (visible(detail(kind).unwrap_or(problem.detail()))) } }
            @if let Some(advice) = advice(kind) { p { (advice) } }
            @if refresh == Refresh::Periodic {
                // Filled by the script.
                p #retries hidden {}
            }
            p .muted { "Status " (status) ", request " code { (request_id) } }
        }
        @if let Some(Form(form)) = form { (PreEscaped(form)) }
        @else { p .nothing { a href=(base.root()) { "All segments" } } }
    };
    Body::from(layout::page(base, Page::Error, title, refresh, Counts::None, &main).into_string())
}

/// Returns a heading for readers of pages, who don't see requests.
const fn title(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => Some("Counts are unavailable right now"),
        ProblemKind::Unauthorized => Some("Sign in"),
        ProblemKind::InsufficientScope => Some("This key can’t read segments"),
        ProblemKind::NotFound => Some("Page not found"),
        ProblemKind::Overloaded | ProblemKind::TooManyLists => Some("The service is busy"),
        ProblemKind::TooManyOverlaps => Some("Too many comparisons at once"),
        ProblemKind::Invalid => Some("This link isn’t valid"),
        _ => None,
    }
}

/// Returns an explanation for readers of pages, in place of the one for API clients.
const fn detail(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unavailable => Some("The database isn’t responding. The service’s log has the cause."),
        ProblemKind::NotFound => Some("Start from All segments."),
        _ => None,
    }
}

const fn advice(kind: ProblemKind) -> Option<&'static str> {
    match kind {
        ProblemKind::Unauthorized => Some("Reload, enter any user name, and an API key or a token as the password."),
        ProblemKind::InsufficientScope => Some(
            "The pages need the scope segments:read. A browser keeps the password until it is closed; to enter another one, use a \
             private window.",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use rstest::rstest;

    use super::*;
    use crate::estimator::CostlyReads;

    async fn page(problem: Problem, form: Option<Markup>) -> String {
        let form = form.map(|form| Form(form.into_string().into()));
        let body = body(&problem, "id", form, BasePath::Pages, &mut HeaderMap::new());
        String::from_utf8(to_bytes(body, 100_000).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn refused_comparison_says_why_and_retries_with_its_form() {
        let refused = TooMany { reads: CostlyReads::Overlaps, max: 2 };
        let page = page(too_many_comparisons(refused), Some(html! { form {} })).await;
        assert!(page.contains("<h1>Too many comparisons at once</h1><p>2 are running.</p>"), "{page}");
        assert!(page.contains("data-refresh") && page.contains("<form></form>"), "{page}");
    }

    #[rstest]
    #[case::unavailable(ProblemKind::Unavailable, true)]
    #[case::too_many_lists(ProblemKind::TooManyLists, true)]
    #[case::timeout(ProblemKind::RequestTimeout, false)]
    #[case::invalid(ProblemKind::Invalid, false)]
    #[tokio::test]
    async fn page_with_a_form_retries_after_temporary_problems(#[case] kind: ProblemKind, #[case] retries: bool) {
        let page = page(Problem::new(kind, "why"), Some(html! { form {} })).await;
        assert_eq!(page.contains("data-refresh"), retries, "{page}");
        assert_eq!(page.contains("id=\"retries\""), retries, "{page}");
    }
}
