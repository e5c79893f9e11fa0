//! `GET /livez`, `GET /healthz` and `GET /readyz`: liveness and readiness probes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::docs::openapi::responses;
use crate::http::json::json;
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;

/// A successful probe.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Check whether the process responds.
///
/// For a liveness probe: an orchestrator restarts the service if it does not respond. It does not query Redis: a restart
/// of the service would not repair Redis.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "is_live",
    tag = "operation",
    responses(
        (status = 200, description = "The process responds.", body = Health, example = json!({ "status": "ok" })),
        responses::InternalProblem,
    )
)]
pub async fn live() -> Response {
    json(&Health { status: "ok" })
}

/// Check whether the process responds, by another name.
///
/// It answers as `/livez` does.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "is_alive",
    tag = "operation",
    responses(
        (status = 200, description = "The process responds.", body = Health, example = json!({ "status": "ok" })),
        responses::InternalProblem,
    )
)]
pub async fn healthy() -> Response {
    live().await
}

/// Check whether the service accepts requests.
///
/// For a readiness probe or a load balancer: it does while Redis answers and the service is not stopping.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "is_ready",
    tag = "operation",
    responses(
        (status = 200, description = "The service accepts requests.", body = Health, example = json!({ "status": "ready" })),
        responses::ReadinessProblems,
    )
)]
pub async fn ready(State(state): State<Arc<AppState>>) -> Result<Response> {
    if state.is_stopping.load(Ordering::Relaxed) {
        return Err(Problem::stopping());
    }
    state.estimator.ready().await?;
    Ok(json(&Health { status: "ready" }))
}
