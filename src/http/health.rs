//! The probes: is the process alive, and should it get requests?

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::problem::{Problem, Result};
use super::{AppState, json};

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`: the process answers. Never asks Redis: restarting us would not help Redis.
pub async fn live() -> Response {
    json(&Health { status: "ok" })
}

/// `GET /readyz`: Redis answers and we are not stopping, so requests may come.
pub async fn ready(State(state): State<Arc<AppState>>) -> Result<Response> {
    if state.stopping.is_cancelled() {
        return Err(Problem::stopping());
    }
    state.estimator.ready().await?;
    Ok(json(&Health { status: "ready" }))
}
