//! The handler that anybody would write: axum's `Json` and `Path`, a `ConnectionManager`, one command a request. The
//! service has to be faster than this to be worth its code.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};

use crate::Result;

const WINDOW_SECONDS: f64 = 14.0 * 24.0 * 60.0 * 60.0;

#[derive(Deserialize)]
struct Visit {
    user_id: String,
    segment: String,
}

#[derive(Serialize)]
struct Count {
    segment: String,
    count: u64,
}

async fn record(
    State(mut redis): State<ConnectionManager>,
    Json(visit): Json<Visit>,
) -> std::result::Result<StatusCode, StatusCode> {
    let mut zadd = redis::cmd("ZADD");
    zadd.arg(format!("segment:{}", visit.segment)).arg("GT").arg(now()).arg(visit.user_id);
    zadd.exec_async(&mut redis).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn count(
    State(mut redis): State<ConnectionManager>,
    Path(segment): Path<String>,
) -> std::result::Result<Json<Count>, StatusCode> {
    let mut zcount = redis::cmd("ZCOUNT");
    zcount.arg(format!("segment:{segment}")).arg(format!("({}", now() - WINDOW_SECONDS)).arg("+inf");
    let count = zcount.query_async(&mut redis).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(Count { segment, count }))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1e3
}

/// Serves on `listen` with so many threads until the process ends.
pub fn serve(listen: SocketAddr, redis: SocketAddr, threads: usize) -> Result<()> {
    let mut runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.worker_threads(threads).enable_all().build()?.block_on(async {
        let redis = redis::Client::open(format!("redis://{redis}"))?.get_connection_manager().await?;
        let routes = Router::new().route("/segments", post(record)).route("/segments/{name}/count", get(count));
        let listener = tokio::net::TcpListener::bind(listen).await?.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, routes.with_state(redis)).await?)
    })
}
