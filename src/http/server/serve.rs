//! The accept loop: one task per connection, with the drain deadline that `axum::serve` lacks.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::ConnectionServer;
use super::listener::Listener;
use super::stream::Stream;
use super::tls::Tls;
use crate::http::Routes;
use crate::http::middleware::answer::answer;
use crate::telemetry::Metrics;

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Time for the head of a request to arrive since the connection became idle, and for the client to read a part of
    /// a response.
    pub header: Duration,
    /// Time for the requests in flight to complete during a shutdown.
    pub drain: Duration,
    /// Size of a head in bytes, which is also the size of the read buffer. With hyper's default of 400 KiB, a stream of
    /// visits would arrive in frames that block other requests for milliseconds.
    pub head_bytes: usize,
    /// Number of open connections. Further ones wait in the backlog of the operating system, which refuses connections
    /// when it is full.
    pub connections: usize,
}

/// HTTP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Limits of its connections.
    pub limits: ConnectionLimits,
    /// Metrics of its connections.
    pub metrics: Arc<Metrics>,
    /// TLS, or `None` for plain text.
    pub tls: Option<Tls>,
    /// Set when the shutdown begins. The server keeps serving until it is stopped, but closes each connection after its
    /// next response, so that clients reconnect elsewhere in time.
    pub is_stopping: Arc<AtomicBool>,
}

impl Server {
    /// Serves `routes` on `listener` until `stop` is cancelled. Then stops accepting, and returns when all requests in
    /// flight are complete or the drain times out.
    pub async fn serve(self, listener: TcpListener, routes: Routes, stop: CancellationToken) {
        let Self { limits, metrics, tls, is_stopping } = self;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let response = answer(routes.router_for(&request), request.map(Body::new));
            let is_stopping = Arc::clone(&is_stopping);
            response.map(move |mut response| {
                if is_stopping.load(Ordering::Relaxed) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            })
        });
        let mut http = http1::Builder::new();
        // Without vectored writes: for the kernel they cost more than the copy of a small body.
        http.header_read_timeout(limits.header).max_buf_size(limits.head_bytes).writev(false);
        let mut listener = Listener::new(listener, limits.connections, metrics);
        // Aborts the remaining connections when it is dropped.
        let mut connections = JoinSet::new();

        loop {
            let (stream, open) = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let connection = ConnectionServer {
                http: http.clone(),
                service: service.clone(),
                // A token of its own, so that connections don't contend for a lock.
                stop: stop.child_token(),
                head_timeout: limits.header,
            };
            let (stream, tls) = (Stream::new(stream, limits.header), tls.clone());
            connections.spawn(async move {
                let served = match tls {
                    None => connection.serve(stream).await,
                    // Boxed: keeps TLS out of the futures of connections in plain text.
                    Some(tls) => Box::pin(connection.serve_with_tls(stream, &tls)).await,
                };
                if let Err(error) = served {
                    // The client disconnected, or sent invalid HTTP, to which hyper has responded.
                    tracing::debug!(error, "connection ended");
                }
                drop(open);
            });
        }

        drop(listener);
        drain(connections, limits.drain).await;
    }
}

/// Waits until all connections have ended. Aborts those that remain after `limit`.
async fn drain(mut connections: JoinSet<()>, limit: Duration) {
    while connections.try_join_next().is_some() {}
    tracing::info!(connections = connections.len(), "draining");
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(limit, drained).await.is_err() {
        tracing::warn!(?limit, "aborting requests in flight after the drain timeout");
    }
}
