//! The routes: the one place where each path, its handler, its limits and its entry of the OpenAPI document are
//! registered.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, LazyLock};

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Uri;
use axum::middleware::map_request;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::openapi::path::HttpMethod;

use super::api::{
    audience, batch, count, counts, health, histogram, histories, history, metrics, overlap, pictures, segments,
    summary, users, visits,
};
use super::docs;
use super::docs::openapi::document::{self, Documented, RouteDoc};
use super::extract::if_none_match::IfNoneMatch;
use super::extract::scope::HandlerScope;
use super::middleware::endpoint::{Endpoint, MeasuredRoute, RouteLimits};
use super::middleware::{compression, cors};
use super::nearest::nearest_path;
use super::pages;
use super::problem::Problem;
use super::server::AllowedHosts;
use super::state::AppState;
use crate::http::Origins;
use crate::telemetry::Metrics;

use RouteLimits::{Concurrency, ConcurrencyAndTime, RoundTrip, Unlimited};

/// The public API and its pages.
static API: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        route::<visits::__path_record, _>(POST, "/segments", RoundTrip, visits::record),
        route::<batch::__path_record, _>(POST, "/segments/batch", Concurrency, batch::record),
        route::<segments::__path_list, _>(GET, "/segments", ConcurrencyAndTime, segments::list).compressed(),
        route::<counts::__path_counts, _>(GET, "/counts", ConcurrencyAndTime, counts::counts).compressed(),
        route::<summary::__path_summary, _>(GET, "/segments/{name}", ConcurrencyAndTime, summary::summary),
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
        route::<users::__path_segments, _>(GET, "/users/{user_id}/segments", ConcurrencyAndTime, users::segments),
        route::<users::__path_delete, _>(DELETE, "/users/{user_id}", ConcurrencyAndTime, users::delete),
        route::<docs::__path_openapi, _>(GET, "/openapi.json", ConcurrencyAndTime, openapi).compressed(),
        route::<docs::__path_page, _>(GET, "/docs", ConcurrencyAndTime, docs::page).compressed(),
        route::<docs::__path_page_with_slash, _>(GET, "/docs/", ConcurrencyAndTime, docs::page_with_slash).compressed(),
        route::<docs::__path_file, _>(GET, "/docs/{file}", ConcurrencyAndTime, docs::file),
        route::<pages::__path_list, _>(GET, "/", ConcurrencyAndTime, pages::list).compressed(),
        route::<pages::__path_segment, _>(GET, "/pages/segment", ConcurrencyAndTime, pages::segment).compressed(),
        route::<pages::__path_overlap, _>(GET, "/pages/overlap", Concurrency, pages::overlap).compressed(),
        route::<pages::__path_file, _>(GET, "/pages/{file}", ConcurrencyAndTime, pages::file).compressed(),
    ]
});

/// Probes and metrics, on the listener of callers.
static PROBES: LazyLock<Vec<Route>> =
    LazyLock::new(|| probes(route::<metrics::__path_metrics, _>(GET, "/metrics", Unlimited, metrics::metrics)));

/// Probes and metrics, on a listener of their own.
static ADMIN: LazyLock<Vec<Route>> = LazyLock::new(|| {
    probes(route::<metrics::__path_metrics, _>(GET, "/metrics", Unlimited, metrics::metrics_without_token))
});

fn probes(metrics: Route) -> Vec<Route> {
    vec![
        route::<health::__path_live, _>(GET, "/healthz", Unlimited, health::live),
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

struct Route {
    doc: RouteDoc,
    build: Box<BuildHandler>,
}

impl Route {
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

/// The listener of probes and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbesListener {
    /// The listener of the API.
    Api,
    /// A separate listener.
    Admin,
}

/// Routes of a listener. [`Server`](super::server::Server) renders the problems of its responses.
#[derive(Clone)]
pub struct Routes {
    router: axum::Router,
    hosts: Arc<AllowedHosts>,
    unmatched: Arc<MeasuredRoute>,
    state: Arc<AppState>,
}

impl Routes {
    /// Returns the routes for callers, who may use `hosts`. Includes probes and metrics if `probes` are on the same
    /// listener.
    #[must_use]
    pub fn api(state: Arc<AppState>, origins: Option<&Origins>, hosts: AllowedHosts, probes: ProbesListener) -> Self {
        let probes = match probes {
            ProbesListener::Api => PROBES.as_slice(),
            ProbesListener::Admin => &[],
        };
        let routes = Self::new(API.iter().chain(probes), hosts, state);
        match origins {
            None => routes,
            Some(origins) => Self { router: routes.router.layer(cors::layer(origins)), ..routes },
        }
    }

    /// Returns the routes for operators, with any `Host`: orchestrators and monitors use arbitrary names.
    #[must_use]
    pub fn admin(state: Arc<AppState>) -> Self {
        Self::new(ADMIN.iter(), AllowedHosts::Any, state)
    }

    fn new(routes: impl Iterator<Item = &'static Route>, hosts: AllowedHosts, state: Arc<AppState>) -> Self {
        let (mut router, mut paths) = (axum::Router::new(), Vec::new());
        for route in routes {
            router = router.route(route.doc.path, (route.build)(&state.metrics));
            paths.push(route.doc.path);
        }
        Self::with_fallbacks(router, paths.into(), hosts, state)
    }

    /// Adds the responses to requests that no route serves. `paths` are those of the routes.
    fn with_fallbacks(
        router: axum::Router<Arc<AppState>>,
        paths: Arc<[&'static str]>,
        hosts: AllowedHosts,
        state: Arc<AppState>,
    ) -> Self {
        let unmatched = MeasuredRoute::unmatched(&state.metrics);
        let not_found = move |uri: Uri| {
            let nearest = nearest_path(uri.path(), paths.iter().copied());
            let problem = Problem::not_found();
            ready(nearest.iter().fold(problem, |problem, path| problem.suggesting(path)))
        };
        let not_found = Endpoint::new(not_found, Unlimited, Arc::clone(&unmatched));
        let method_not_allowed =
            Endpoint::new(async || Problem::method_not_allowed(), Unlimited, Arc::clone(&unmatched));
        let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        Self { router: router.with_state(Arc::clone(&state)), hosts: Arc::new(hosts), unmatched, state }
    }

    /// Returns the router for `request`, or the response to a request whose `Host` is invalid or not allowed.
    pub(super) fn router_for<B>(&self, request: &Request<B>) -> Result<axum::Router, Box<Response>> {
        match self.hosts.check(request) {
            Ok(()) => Ok(self.router.clone()),
            Err(problem) => Err(Box::new(self.unmatched.refuse(problem, request.headers(), &self.state))),
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use axum::routing;
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::auth::{AuthConfig, Authenticator};
    use crate::domain::Window;
    use crate::estimator::Estimator;
    use crate::estimator::clock::Clock;
    use crate::estimator::history::History;
    use crate::estimator::overlap::{OverlapLimits, Overlaps};
    use crate::http::RequestLimits;
    use crate::http::server::{ConnectionLimits, Server};
    use crate::redis::{self, Client, RedisUrl};
    use crate::store::Store;

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
        let _ = route::<health::__path_live, _>(POST, "/healthz", Unlimited, health::live);
    }

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let state = Arc::new(state());
        let route = MeasuredRoute::unmatched(&state.metrics);
        let panic = Endpoint::new(async || -> StatusCode { panic!("for the test") }, Unlimited, Arc::clone(&route));
        let bare = Endpoint::new(async || (StatusCode::BAD_GATEWAY, "not a problem document"), Unlimited, route);
        let router = axum::Router::new().route("/panic", routing::get(panic)).route("/bare", routing::get(bare));
        let routes = Routes::with_fallbacks(router, Arc::default(), AllowedHosts::LOCAL, state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server().serve(listener, routes, CancellationToken::new()));

        for path in ["panic", "bare", "panic"] {
            let response = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let document: serde_json::Value = response.json().await.unwrap();
            assert_eq!(document["type"], "urn:segment-estimator:problem:internal-error");
            assert!(!document.to_string().contains("for the test"), "{document}");
        }
    }

    fn server() -> Server {
        let minute = Duration::from_secs(60);
        Server {
            limits: ConnectionLimits { header: minute, drain: minute, head_bytes: 8_192, connections: 10 },
            metrics: Arc::default(),
            tls: None,
            is_stopping: Arc::default(),
        }
    }

    /// Returns the state of a service without Redis.
    fn state() -> AppState {
        let second = Duration::from_secs(1);
        let limits = redis::Limits { connect: second, answer: second, max_pending: 1 };
        let url = RedisUrl::unix("/nowhere/redis.sock".into());
        let store = Store::new(Client::new(url, limits, Arc::default()).unwrap());
        let window = Window::parse("14d").unwrap();
        let overlaps = OverlapLimits { timeout: second, concurrency: 1, wait: second, memory: 1_000_000 };
        AppState {
            history: History::new(store.clone(), None),
            overlaps: Overlaps::new(store.clone(), window, overlaps),
            estimator: Estimator::new(store, window),
            clock: Clock::system(),
            authenticator: Arc::new(Authenticator::load(AuthConfig::default()).unwrap()),
            is_tls: false,
            public_url: None,
            limits: RequestLimits {
                body: second,
                request: second,
                round_trip: Some(second),
                body_bytes: 1_000,
                requests: 1,
            },
            trace_ratio: None,
            in_flight: Arc::new(Semaphore::new(1)),
            metrics: Arc::default(),
            is_stopping: Arc::default(),
            end_streams: CancellationToken::new(),
        }
    }
}
