//! HTTP: routes, handlers, middleware and the server. It uses the [`Estimator`](crate::estimator::Estimator) and sends
//! nothing to Redis; `errors.rs` explains Redis's errors to callers.
//!
//! A request passes `server/` (connections, TLS, `Host`), `middleware/answer` (request id, problems), the router
//! (`router.rs`, with the table of `routes.rs`), `middleware/endpoint` (limits, metrics, traces) and the extractors of
//! `extract/`. The handlers are in `api/` (JSON), `pages/` (HTML) and `docs/` (OpenAPI); `charts/` draws for `api/` and
//! `pages/`.

mod accept;
mod api;
mod batch_report;
mod caller;
mod charts;
mod cursor;
mod docs;
mod errors;
mod extract;
mod format;
mod json;
mod middleware;
mod nearest;
mod pages;
mod percent;
mod problem;
mod public_url;
mod router;
mod routes;
pub mod server;
mod similar_names;
mod state;
mod streamed_body;
mod table;

pub use self::middleware::cors::Origins;
pub use self::public_url::PublicUrl;
pub use self::router::{ProbesListener, Routes};
pub use self::routes::openapi_json;
pub use self::server::{AllowedHosts, Tls, TlsError, TlsFiles};
pub use self::state::{AppState, RequestLimits};
