//! The probes: is the process alive, and should it get requests?

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::AppState;
use crate::http::docs::openapi::problems;
use crate::http::json::json;
use crate::http::problem::{Problem, Result};

/// That all is well.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Whether the process answers.
///
/// Never asks Redis: to restart the service would not help Redis.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "is_alive",
    tag = "operation",
    responses(
        (status = 200, description = "It does.", body = Health, example = json!({ "status": "ok" })),
        problems::OfAnything,
    )
)]
pub async fn live() -> Response {
    json(&Health { status: "ok" })
}

/// Whether requests may come.
///
/// They may while Redis answers and the service is not stopping.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "is_ready",
    tag = "operation",
    responses(
        (status = 200, description = "They may.", body = Health, example = json!({ "status": "ready" })),
        problems::OfReadiness,
    )
)]
pub async fn ready(State(state): State<Arc<AppState>>) -> Result<Response> {
    if state.is_stopping.load(Ordering::Relaxed) {
        return Err(Problem::stopping());
    }
    state.estimator.ready().await?;
    Ok(json(&Health { status: "ready" }))
}
