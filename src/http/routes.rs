//! The routes: the one place where each path, its handler, its limits and its entry of the OpenAPI document are
//! registered.

use std::sync::{Arc, LazyLock};

use axum::handler::Handler;
use axum::middleware::map_request;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::openapi::path::HttpMethod;

use super::api::{
    audience, batch, count, counts, delete_segment, health, histogram, histories, history, members, metrics, overlap,
    pictures, remove_user, segments, summary, users, visits,
};
use super::docs;
use super::docs::openapi::document::{self, Documented, RouteDoc};
use super::extract::if_none_match::IfNoneMatch;
use super::extract::scope::HandlerScope;
use super::middleware::compression;
use super::middleware::endpoint::{Endpoint, MeasuredRoute, RouteLimits};
use super::pages;
use super::state::AppState;
use crate::telemetry::Metrics;

use RouteLimits::{Concurrency, ConcurrencyAndTime, RoundTrip, Time, Unlimited};

/// The public API and its pages.
pub static API: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        route::<visits::__path_record, _>(POST, "/segments", RoundTrip, visits::record),
        route::<batch::__path_record, _>(POST, "/segments/batch", Concurrency, batch::record),
        route::<segments::__path_list, _>(GET, "/segments", ConcurrencyAndTime, segments::list).compressed(),
        route::<counts::__path_counts, _>(GET, "/counts", ConcurrencyAndTime, counts::counts).compressed(),
        route::<summary::__path_summary, _>(GET, "/segments/{name}", ConcurrencyAndTime, summary::summary),
        route::<delete_segment::__path_delete, _>(DELETE, "/segments/{name}", Time, delete_segment::delete),
        route::<count::__path_count, _>(GET, "/segments/{name}/count", RoundTrip, count::count),
        route::<histogram::__path_histogram, _>(
            GET,
            "/segments/{name}/histogram",
            ConcurrencyAndTime,
            histogram::histogram,
        ),
        route::<history::__path_history, _>(GET, "/segments/{name}/history", ConcurrencyAndTime, history::history)
            .compressed(),
        route::<pictures::__path_history, _>(
            GET,
            "/segments/{name}/history.svg",
            ConcurrencyAndTime,
            pictures::history,
        )
        .compressed(),
        route::<pictures::__path_histogram, _>(
            GET,
            "/segments/{name}/histogram.svg",
            ConcurrencyAndTime,
            pictures::histogram,
        )
        .compressed(),
        route::<histories::__path_histories, _>(GET, "/history", ConcurrencyAndTime, histories::histories).compressed(),
        route::<overlap::__path_overlap, _>(GET, "/overlap", Concurrency, overlap::overlap).compressed(),
        route::<audience::__path_count, _>(GET, "/audience/count", Concurrency, audience::count),
        route::<members::list::__path_list, _>(GET, "/segments/{name}/users", ConcurrencyAndTime, members::list::list)
            .compressed(),
        route::<members::member::__path_member, _>(
            GET,
            "/segments/{name}/users/{user_id}",
            RoundTrip,
            members::member::member,
        ),
        route::<remove_user::__path_remove, _>(DELETE, "/segments/{name}/users/{user_id}", Time, remove_user::remove),
        route::<users::__path_segments, _>(GET, "/users/{user_id}/segments", ConcurrencyAndTime, users::segments),
        route::<users::__path_delete, _>(DELETE, "/users/{user_id}", Time, users::delete),
        route::<docs::__path_openapi, _>(GET, "/openapi.json", ConcurrencyAndTime, openapi).compressed(),
        route::<docs::__path_page, _>(GET, "/docs", ConcurrencyAndTime, docs::page).compressed(),
        route::<docs::__path_page_with_slash, _>(GET, "/docs/", ConcurrencyAndTime, docs::page_with_slash).compressed(),
        route::<docs::__path_file, _>(GET, "/docs/{file}", ConcurrencyAndTime, docs::file).compressed(),
        route::<pages::__path_list, _>(GET, "/", ConcurrencyAndTime, pages::list).compressed(),
        route::<pages::__path_segment, _>(GET, "/pages/segment", ConcurrencyAndTime, pages::segment).compressed(),
        route::<pages::__path_overlap, _>(GET, "/pages/overlap", Concurrency, pages::overlap).compressed(),
        route::<pages::__path_audience, _>(GET, "/pages/audience", Concurrency, pages::audience).compressed(),
        route::<pages::__path_file, _>(GET, "/pages/{file}", ConcurrencyAndTime, pages::file).compressed(),
    ]
});

/// Probes and metrics, on the listener of callers.
pub static PROBES: LazyLock<Vec<Route>> =
    LazyLock::new(|| probes(route::<metrics::__path_metrics, _>(GET, "/metrics", Unlimited, metrics::metrics)));

/// Probes and metrics, on a listener of their own.
pub static ADMIN: LazyLock<Vec<Route>> = LazyLock::new(|| {
    probes(route::<metrics::__path_metrics, _>(GET, "/metrics", Unlimited, metrics::metrics_without_token))
});

fn probes(metrics: Route) -> Vec<Route> {
    vec![
        route::<health::__path_live, _>(GET, "/livez", Unlimited, health::live),
        route::<health::__path_healthy, _>(GET, "/healthz", Unlimited, health::healthy),
        route::<health::__path_ready, _>(GET, "/readyz", Unlimited, health::ready),
        metrics,
    ]
}

async fn openapi(known: IfNoneMatch) -> Response {
    docs::openapi(&known, openapi_json)
}

/// Returns the OpenAPI document as JSON.
#[must_use]
pub fn openapi_json() -> String {
    document::to_json(API.iter().chain(&*PROBES).map(|route| &route.doc))
}

/// A route and how to build its handler.
pub struct Route {
    doc: RouteDoc,
    build: Box<BuildHandler>,
}

impl Route {
    pub fn path(&self) -> &'static str {
        self.doc.path
    }

    /// Returns the handler with its middleware.
    pub fn build(&self, metrics: &Metrics) -> MethodRouter<Arc<AppState>> {
        (self.build)(metrics)
    }

    /// Compresses the answers.
    fn compressed(self) -> Self {
        let build = self.build;
        let build = move |metrics: &Metrics| {
            build(metrics).layer(compression::layer()).layer(map_request(compression::choose_encoding))
        };
        Self { build: Box::new(build), ..self }
    }
}

/// Returns the handler of a route with its middleware.
type BuildHandler = dyn Fn(&Metrics) -> MethodRouter<Arc<AppState>> + Send + Sync;

/// A method by its names in metrics, in axum and in utoipa.
type Verb = (&'static str, MethodFilter, HttpMethod);

const GET: Verb = ("GET", MethodFilter::GET, HttpMethod::Get);
const POST: Verb = ("POST", MethodFilter::POST, HttpMethod::Post);
const DELETE: Verb = ("DELETE", MethodFilter::DELETE, HttpMethod::Delete);

/// Returns the route that `#[utoipa::path]` describes as `P`.
///
/// # Panics
///
/// If `P` has another method or path.
fn route<P: Documented, T: HandlerScope + 'static>(
    (name, filter, method): Verb,
    path: &'static str,
    limits: RouteLimits,
    handler: impl Handler<T, Arc<AppState>, Future: Unpin>,
) -> Route {
    let build = move |metrics: &Metrics| {
        on(filter, Endpoint::new(handler.clone(), limits, MeasuredRoute::new(name, path, metrics)))
    };
    Route { doc: RouteDoc::of::<P>(method, path, T::SCOPE), build: Box::new(build) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_document_has_the_paths_of_the_routes() {
        let document: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
        let mut paths: Vec<_> = API.iter().chain(&*PROBES).map(|route| route.doc.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths, document["paths"].as_object().unwrap().keys().collect::<Vec<_>>());
        let admin: Vec<_> = ADMIN.iter().map(|route| route.doc.path).collect();
        assert_eq!(admin, PROBES.iter().map(|route| route.doc.path).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "another path")]
    fn a_route_with_another_path_than_its_description_panics() {
        let _ = route::<health::__path_live, _>(GET, "/readyz", Unlimited, health::live);
    }

    #[test]
    #[should_panic(expected = "another method")]
    fn a_route_with_another_method_than_its_description_panics() {
        let _ = route::<health::__path_live, _>(POST, "/livez", Unlimited, health::live);
    }
}
