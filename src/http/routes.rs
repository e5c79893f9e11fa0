//! Which handler has which path, and how its requests are limited.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};

use super::api::{batch, health, histogram, history, lists, metrics, overlap, segments, users};
use super::docs::{self, openapi};
use super::extract::auth::{May, Read};
use super::middleware::cors;
use super::middleware::endpoint::{Bounds, Endpoint};
use super::problem::Problem;
use super::{AllowedHosts, AppState, Origins, pages};

/// What a listener serves: the routes, and what answers the requests that must not reach them.
/// [`Server`](super::server::Server) makes problems of their errors.
#[derive(Debug, Clone)]
pub struct Site {
    routes: Router,
    refusal: Router,
    hosts: Arc<AllowedHosts>,
}

impl Site {
    /// The routes of the API and, unless they are served elsewhere, those of [`Self::of_admin`], for requests to `hosts`.
    pub fn of_api(state: Arc<AppState>, origins: Option<&Origins>, hosts: AllowedHosts, has_admin: bool) -> Self {
        let routes = Routes::new(state).with_api();
        let routes = if has_admin { routes } else { routes.with_probes().with_protected_metrics() };
        let site = routes.into_site(hosts);
        match origins {
            None => site,
            Some(origins) => Self { routes: site.routes.layer(cors::layer(origins)), ..site },
        }
    }

    /// Probes and metrics, for a listener of their own. Orchestrators and monitors call it by any name.
    pub fn of_admin(state: Arc<AppState>) -> Self {
        Routes::new(state).with_probes().with_metrics().into_site(AllowedHosts::Any)
    }

    /// What answers `request`.
    pub(super) fn router_for<B>(&self, request: &Request<B>) -> Router {
        if self.hosts.check(request).is_ok() { self.routes.clone() } else { self.refusal.clone() }
    }
}

/// Every path with its methods, whose handlers are [`Endpoint`]s. A test holds [`openapi`]'s document to it.
struct Routes {
    methods: Vec<(&'static str, MethodRouter<Arc<AppState>>)>,
    state: Arc<AppState>,
}

impl Routes {
    fn new(state: Arc<AppState>) -> Self {
        Self { methods: Vec::new(), state }
    }

    fn with_api(self) -> Self {
        self.post("/segments", Bounds::RoundTrip, segments::record)
            .post("/segments/batch", Bounds::Number, batch::record)
            .get("/segments", Bounds::NumberAndTime, lists::list)
            .get("/counts", Bounds::NumberAndTime, lists::counts)
            .get("/segments/{name}/count", Bounds::RoundTrip, segments::count)
            .get("/segments/{name}/histogram", Bounds::NumberAndTime, histogram::of_segment)
            .get("/segments/{name}/history", Bounds::NumberAndTime, history::of_segment)
            .get("/overlap", Bounds::Number, overlap::overlap)
            .get("/users/{user_id}/segments", Bounds::NumberAndTime, users::segments)
            .delete("/users/{user_id}", Bounds::NumberAndTime, users::forget)
            .get("/openapi.json", Bounds::NumberAndTime, openapi::handler())
            .get("/docs", Bounds::NumberAndTime, docs::page)
            .get("/docs/", Bounds::NumberAndTime, docs::page_with_slash)
            .get("/docs/{file}", Bounds::NumberAndTime, docs::file)
            .get("/", Bounds::NumberAndTime, pages::of_list)
            .get("/pages/segment", Bounds::NumberAndTime, pages::of_segment)
            .get("/pages/overlap", Bounds::Number, pages::of_overlap)
            .get("/pages/{file}", Bounds::NumberAndTime, pages::file)
    }

    fn with_probes(self) -> Self {
        self.get("/healthz", Bounds::None, health::live).get("/readyz", Bounds::None, health::ready)
    }

    /// Metrics for whoever reaches the listener.
    fn with_metrics(self) -> Self {
        self.get("/metrics", Bounds::None, metrics::metrics)
    }

    /// Metrics among what a token is needed for.
    fn with_protected_metrics(self) -> Self {
        self.get("/metrics", Bounds::None, async |_: May<Read>, state| metrics::metrics(state).await)
    }

    fn get<T: 'static>(mut self, path: &'static str, bounds: Bounds, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let endpoint = self.endpoint("GET", path, bounds, handler);
        self.methods.push((path, get(endpoint)));
        self
    }

    fn post<T: 'static>(mut self, path: &'static str, bounds: Bounds, handler: impl Handler<T, Arc<AppState>>) -> Self {
        let endpoint = self.endpoint("POST", path, bounds, handler);
        self.methods.push((path, post(endpoint)));
        self
    }

    fn delete<T: 'static>(
        mut self,
        path: &'static str,
        bounds: Bounds,
        handler: impl Handler<T, Arc<AppState>>,
    ) -> Self {
        let endpoint = self.endpoint("DELETE", path, bounds, handler);
        self.methods.push((path, delete(endpoint)));
        self
    }

    fn endpoint<H>(&self, method: &'static str, path: &'static str, bounds: Bounds, handler: H) -> Endpoint<H> {
        Endpoint::new(handler, method, path, bounds, self.state.estimator.metrics())
    }

    fn into_site(self, hosts: AllowedHosts) -> Site {
        let hosts = Arc::new(hosts);
        let checked = Arc::clone(&hosts);
        let refuse = async move |request: Request| checked.check(&request);
        // What a caller makes up, be it a path or a method, is no label.
        let refused = self.endpoint("any", "unmatched", Bounds::None, refuse);
        let refusal = Router::new().fallback(refused).with_state(Arc::clone(&self.state));
        let not_found = self.endpoint("any", "unmatched", Bounds::None, async || Problem::not_found());
        let method_not_allowed =
            self.endpoint("any", "unmatched", Bounds::None, async || Problem::method_not_allowed());
        let routes =
            self.methods.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
        let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(self.state);
        Site { routes, refusal, hosts }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use axum::http::StatusCode;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::auth::{AuthConfig, Gate};
    use crate::domain::Window;
    use crate::estimator::Estimator;
    use crate::estimator::clock::Clock;
    use crate::estimator::history::History;
    use crate::estimator::overlap::{OverlapLimits, Overlaps};
    use crate::http::RequestLimits;
    use crate::http::server::{Limits, Server};
    use crate::redis::{self, Connection, RedisUrl};
    use crate::store::Store;

    #[test]
    fn the_router_has_the_paths_of_the_document() {
        let document: serde_json::Value = serde_json::from_str(&openapi::to_json()).unwrap();
        let routes = Routes::new(Arc::new(state())).with_api().with_probes().with_protected_metrics();
        let mut paths: Vec<_> = routes.methods.iter().map(|(path, _)| *path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths, document["paths"].as_object().unwrap().keys().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_and_a_bare_error_are_problems_and_the_service_lives_on() {
        let routes = Routes::new(Arc::new(state()))
            .get("/panic", Bounds::None, async || -> StatusCode { panic!("for the test") })
            .get("/bare", Bounds::None, async || (StatusCode::BAD_GATEWAY, "not a problem document"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server().serve(listener, routes.into_site(AllowedHosts::LOCAL), CancellationToken::new()));

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
            limits: Limits { header: minute, drain: minute, head_bytes: 8_192, connections: 10 },
            metrics: Arc::default(),
            tls: None,
            is_stopping: Arc::default(),
        }
    }

    /// The state of a service whose Redis is nowhere.
    fn state() -> AppState {
        let second = Duration::from_secs(1);
        let limits = redis::Limits { connect: second, answer: second, waiting: 1 };
        let url = RedisUrl::unix("/nowhere/redis.sock".into());
        let store = Store::new(Connection::new(url, limits, Arc::default()).unwrap());
        let window = Window::parse("14d").unwrap();
        let overlaps = OverlapLimits { timeout: second, at_once: 1, memory: 1_000_000 };
        AppState {
            history: History::new(store.clone(), None),
            overlaps: Overlaps::new(store.clone(), window, overlaps),
            estimator: Estimator::new(store, window),
            clock: Clock::system(),
            gate: Arc::new(Gate::load(AuthConfig::default()).unwrap()),
            is_tls: false,
            limits: RequestLimits {
                body: second,
                request: second,
                round_trip: Some(second),
                body_bytes: 1_000,
                requests: 1,
            },
            trace_ratio: None,
            under_way: AtomicUsize::new(0),
            is_stopping: Arc::default(),
            ending: CancellationToken::new(),
        }
    }
}
