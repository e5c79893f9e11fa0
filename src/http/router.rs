//! The router of each listener: its routes, and the responses to requests that no route serves.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse as _, Response};

use super::accept::is_navigation;
use super::middleware::cors;
use super::middleware::endpoint::{Endpoint, MeasuredRoute, RouteLimits};
use super::nearest::nearest_path;
use super::pages;
use super::problem::Problem;
use super::routes::{ADMIN, API, PROBES, Route};
use super::server::AllowedHosts;
use super::state::AppState;
use crate::http::Origins;

/// The listener of probes and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbesListener {
    /// The listener of the API.
    Api,
    /// A separate listener.
    Admin,
}

/// Whether a listener has the pages, so that a browser gets a page for an unknown path.
struct HasPages(bool);

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
        let routes = Self::new(API.iter().chain(probes), hosts, state, HasPages(true));
        match origins {
            None => routes,
            Some(origins) => Self { router: routes.router.layer(cors::layer(origins)), ..routes },
        }
    }

    /// Returns the routes for operators, with any `Host`: orchestrators and monitors use arbitrary names.
    #[must_use]
    pub fn admin(state: Arc<AppState>) -> Self {
        Self::new(ADMIN.iter(), AllowedHosts::Any, state, HasPages(false))
    }

    fn new(
        routes: impl Iterator<Item = &'static Route>,
        hosts: AllowedHosts,
        state: Arc<AppState>,
        has_pages: HasPages,
    ) -> Self {
        let (mut router, mut paths) = (axum::Router::new(), Vec::new());
        for route in routes {
            router = router.route(route.path(), route.build(&state.metrics));
            paths.push(route.path());
        }
        Self::with_fallbacks(router, paths.into(), hosts, state, has_pages)
    }

    /// Adds the responses to requests that no route serves. `paths` are those of the routes.
    fn with_fallbacks(
        router: axum::Router<Arc<AppState>>,
        paths: Arc<[&'static str]>,
        hosts: AllowedHosts,
        state: Arc<AppState>,
        HasPages(has_pages): HasPages,
    ) -> Self {
        let unmatched = MeasuredRoute::unmatched(&state.metrics);
        let not_found = move |method: Method, uri: Uri, headers: HeaderMap| {
            let nearest = nearest_path(uri.path(), paths.iter().copied());
            ready(if has_pages && method.is_safe() && is_navigation(&headers) {
                pages::error::not_found(uri.path(), nearest.as_deref())
            } else {
                let problem = Problem::not_found();
                match nearest {
                    Some(path) => problem.suggesting(&path),
                    None => problem,
                }
                .into_response()
            })
        };
        let not_found = Endpoint::new(not_found, RouteLimits::Unlimited, Arc::clone(&unmatched));
        let method_not_allowed =
            Endpoint::new(async || Problem::method_not_allowed(), RouteLimits::Unlimited, Arc::clone(&unmatched));
        let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        Self { router: router.with_state(Arc::clone(&state)), hosts: Arc::new(hosts), unmatched, state }
    }

    /// Returns the router for `request`, or the response to a request whose `Host` is invalid or not allowed.
    pub(super) fn router_for<B>(&self, request: &Request<B>) -> Result<axum::Router, Box<Response>> {
        match self.hosts.check(request) {
            Ok(()) => Ok(self.router.clone()),
            Err(problem) => Err(Box::new(self.unmatched.refuse(problem, request, &self.state))),
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

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let state = Arc::new(state());
        let route = MeasuredRoute::unmatched(&state.metrics);
        let panic = Endpoint::new(
            async || -> StatusCode { panic!("for the test") },
            RouteLimits::Unlimited,
            Arc::clone(&route),
        );
        let bare =
            Endpoint::new(async || (StatusCode::BAD_GATEWAY, "not a problem document"), RouteLimits::Unlimited, route);
        let router = axum::Router::new().route("/panic", routing::get(panic)).route("/bare", routing::get(bare));
        let routes = Routes::with_fallbacks(router, Arc::default(), AllowedHosts::LOCAL, state, HasPages(true));
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
