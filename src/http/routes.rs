//! The routes: the one place where each path, its handler, its limits and its entry of the OpenAPI document are
//! registered.

use std::fmt;
use std::sync::{Arc, LazyLock};

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::openapi::path::HttpMethod;
use utoipa::{__dev, Path};

use super::api::{batch, count, counts, health, histogram, history, metrics, overlap, segments, users, visits};
use super::docs;
use super::docs::openapi::document::{self, Entry};
use super::extract::scope::HandlerScope;
use super::middleware::cors;
use super::middleware::endpoint::{Endpoint, MeasuredRoute, RouteLimits};
use super::pages;
use super::problem::Problem;
use super::server::AllowedHosts;
use super::state::AppState;
use crate::http::Origins;
use crate::telemetry::Metrics;

use RouteLimits::{Concurrency, ConcurrencyAndTime, RoundTrip, Unlimited};

/// Routes of callers.
static API: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        Route::new::<visits::__path_record, _>(RoundTrip, visits::record),
        Route::new::<batch::__path_record, _>(Concurrency, batch::record),
        Route::new::<segments::__path_list, _>(ConcurrencyAndTime, segments::list),
        Route::new::<counts::__path_counts, _>(ConcurrencyAndTime, counts::counts),
        Route::new::<count::__path_count, _>(RoundTrip, count::count),
        Route::new::<histogram::__path_histogram, _>(ConcurrencyAndTime, histogram::histogram),
        Route::new::<history::__path_history, _>(ConcurrencyAndTime, history::history),
        Route::new::<overlap::__path_overlap, _>(Concurrency, overlap::overlap),
        Route::new::<users::__path_segments, _>(ConcurrencyAndTime, users::segments),
        Route::new::<users::__path_delete, _>(ConcurrencyAndTime, users::delete),
        Route::new::<docs::__path_openapi, _>(ConcurrencyAndTime, docs::openapi(openapi_json)),
        Route::new::<docs::__path_page, _>(ConcurrencyAndTime, docs::page),
        Route::new::<docs::__path_page_with_slash, _>(ConcurrencyAndTime, docs::page_with_slash),
        Route::new::<docs::__path_file, _>(ConcurrencyAndTime, docs::file),
        Route::new::<pages::__path_list, _>(ConcurrencyAndTime, pages::list),
        Route::new::<pages::__path_segment, _>(ConcurrencyAndTime, pages::segment),
        Route::new::<pages::__path_overlap, _>(Concurrency, pages::overlap),
        Route::new::<pages::__path_file, _>(ConcurrencyAndTime, pages::file),
    ]
});

/// Routes of operators, on the listener of callers.
static OPERATION: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        Route::new::<health::__path_live, _>(Unlimited, health::live),
        Route::new::<health::__path_ready, _>(Unlimited, health::ready),
        Route::new::<metrics::__path_metrics, _>(Unlimited, metrics::metrics),
    ]
});

/// Routes of operators, on a listener of their own.
static ADMIN: LazyLock<Vec<Route>> = LazyLock::new(|| {
    vec![
        Route::new::<health::__path_live, _>(Unlimited, health::live),
        Route::new::<health::__path_ready, _>(Unlimited, health::ready),
        Route::new::<metrics::__path_metrics, _>(Unlimited, metrics::metrics_without_token),
    ]
});

/// Returns the OpenAPI document as JSON.
#[must_use]
pub fn openapi_json() -> String {
    document::to_json(API.iter().chain(&*OPERATION).map(|route| &route.entry))
}

struct Route {
    entry: Entry,
    mount: Box<Mount>,
}

/// Returns the handler of a route with its middleware.
type Mount = dyn Fn(&'static Entry, &Metrics) -> MethodRouter<Arc<AppState>> + Send + Sync;

impl Route {
    /// Returns the route that `#[utoipa::path]` describes as `P`.
    fn new<P, T>(limits: RouteLimits, handler: impl Handler<T, Arc<AppState>>) -> Self
    where
        P: Path + __dev::SchemaReferences + __dev::Tags<'static>,
        T: HandlerScope + 'static,
    {
        let mount = move |entry: &'static Entry, metrics: &Metrics| {
            let (method, filter) = match entry.method {
                HttpMethod::Post => ("POST", MethodFilter::POST),
                HttpMethod::Delete => ("DELETE", MethodFilter::DELETE),
                _ => ("GET", MethodFilter::GET),
            };
            let route = MeasuredRoute::new(method, &entry.path, metrics);
            on(filter, Endpoint::new(handler.clone(), limits, route))
        };
        Self { entry: Entry::of::<P>(T::SCOPE), mount: Box::new(mount) }
    }
}

/// Router of a listener. [`Server`](super::server::Server) renders the problems of its responses.
#[derive(Clone)]
pub struct Router {
    routes: axum::Router,
    hosts: Arc<AllowedHosts>,
    unmatched: Arc<MeasuredRoute>,
    state: Arc<AppState>,
}

impl Router {
    /// Returns the router for callers, who may use `hosts`. Includes the routes of operators unless they have a
    /// listener of their own.
    #[must_use]
    pub fn api(state: Arc<AppState>, origins: Option<&Origins>, hosts: AllowedHosts, has_admin: bool) -> Self {
        let operation = if has_admin { &[] } else { OPERATION.as_slice() };
        let router = Self::new(API.iter().chain(operation), hosts, state);
        match origins {
            None => router,
            Some(origins) => Self { routes: router.routes.layer(cors::layer(origins)), ..router },
        }
    }

    /// Returns the router for operators, with any `Host`: orchestrators and monitors use arbitrary names.
    #[must_use]
    pub fn admin(state: Arc<AppState>) -> Self {
        Self::new(ADMIN.iter(), AllowedHosts::Any, state)
    }

    fn new(routes: impl Iterator<Item = &'static Route>, hosts: AllowedHosts, state: Arc<AppState>) -> Self {
        let mount = |router: axum::Router<_>, Route { entry, mount }: &'static Route| {
            router.route(&entry.path, mount(entry, &state.metrics))
        };
        let routes = routes.fold(axum::Router::new(), mount);
        Self::with_fallbacks(routes, hosts, state)
    }

    fn with_fallbacks(routes: axum::Router<Arc<AppState>>, hosts: AllowedHosts, state: Arc<AppState>) -> Self {
        let unmatched = MeasuredRoute::unmatched(&state.metrics);
        let not_found = Endpoint::new(async || Problem::not_found(), Unlimited, Arc::clone(&unmatched));
        let method_not_allowed =
            Endpoint::new(async || Problem::method_not_allowed(), Unlimited, Arc::clone(&unmatched));
        let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        Self { routes: routes.with_state(Arc::clone(&state)), hosts: Arc::new(hosts), unmatched, state }
    }

    /// Returns the routes for `request`, or the response to a request whose `Host` is invalid or not allowed.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<axum::Router, Box<Response>> {
        match self.hosts.check(request) {
            Ok(()) => Ok(self.routes.clone()),
            Err(problem) => Err(Box::new(self.unmatched.refuse(problem, request.headers(), &self.state))),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use axum::routing::get;
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
        let mut paths: Vec<_> = API.iter().chain(&*OPERATION).map(|route| route.entry.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths, document["paths"].as_object().unwrap().keys().collect::<Vec<_>>());
        let admin: Vec<_> = ADMIN.iter().map(|route| &route.entry.path).collect();
        assert_eq!(admin, OPERATION.iter().map(|route| &route.entry.path).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let state = Arc::new(state());
        let route = MeasuredRoute::unmatched(&state.metrics);
        let panic = Endpoint::new(async || -> StatusCode { panic!("for the test") }, Unlimited, Arc::clone(&route));
        let bare = Endpoint::new(async || (StatusCode::BAD_GATEWAY, "not a problem document"), Unlimited, route);
        let routes = axum::Router::new().route("/panic", get(panic)).route("/bare", get(bare));
        let router = Router::with_fallbacks(routes, AllowedHosts::LOCAL, state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server().serve(listener, router, CancellationToken::new()));

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
        let overlaps = OverlapLimits { timeout: second, concurrency: 1, memory: 1_000_000 };
        AppState {
            history: History::new(store.clone(), None),
            overlaps: Overlaps::new(store.clone(), window, overlaps),
            estimator: Estimator::new(store, window),
            clock: Clock::system(),
            authenticator: Arc::new(Authenticator::load(AuthConfig::default()).unwrap()),
            is_tls: false,
            limits: RequestLimits {
                body: second,
                request: second,
                round_trip: Some(second),
                body_bytes: 1_000,
                requests: 1,
            },
            trace_ratio: None,
            in_flight: Semaphore::new(1),
            metrics: Arc::default(),
            is_stopping: Arc::default(),
            ending: CancellationToken::new(),
        }
    }
}
