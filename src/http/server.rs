//! The accept loop, one task per connection, with the time limits and the drain that `axum::serve` doesn't have.
//!
//! HTTP/1.1 alone: hyper-util's automatic choice between HTTP/1 and HTTP/2 runs no timer while it waits for the first
//! bytes, so a client that sends none would be held for ever. Behind a proxy nothing is lost by it.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer::answer;

/// The time limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a request's head to arrive, counted from the moment the connection waits for it: so also how long a
    /// connection may be idle.
    pub header: Duration,
    /// For the requests in flight to finish once the server stops.
    pub drain: Duration,
}

/// What a connection reads ahead of its handler, in bytes, and so the longest head. hyper's own 400 KiB would have a stream
/// of visits come in pieces that take milliseconds each.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves `router` on `listener` until `stop` is cancelled; then accepts nothing more, lets the requests in flight
/// finish, and returns when they have or when the time for it is over.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request.map(Body::new)).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(MAX_BUFFER);
    let connections = GracefulShutdown::new();
    // Owns the tasks: whatever is left of them when this function ends, or is dropped, is cut off.
    let mut tasks = JoinSet::new();
    let mut accepts = true;

    loop {
        let stream = tokio::select! {
            stream = accept(&listener, &mut accepts) => stream,
            Some(_) = tasks.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                // The client went away, or sent what isn't HTTP: hyper has told it so.
                tracing::debug!(%error, "connection ended");
            }
        });
    }

    drop(listener);
    let in_flight = connections.count();
    tracing::info!(connections = in_flight, "draining");
    if tokio::time::timeout(limits.drain, connections.shutdown()).await.is_err() {
        tracing::warn!(limit = ?limits.drain, "requests still in flight are cut off");
    }
}

/// The next connection. Errors are of a connection that is gone already, or of a process that has no descriptor left:
/// both pass, the second when connections close. `accepts` is whether the last try succeeded, so that the second is
/// logged once.
async fn accept(listener: &TcpListener, accepts: &mut bool) -> TcpStream {
    /// While there is no descriptor, accepting fails at once; this keeps the loop from spinning.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if !std::mem::replace(accepts, true) {
                    tracing::info!("accepts connections again");
                }
                // Answers are small, and must not wait for the acknowledgement of the one before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "can't set TCP_NODELAY");
                }
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if std::mem::replace(accepts, false) {
                    tracing::error!(%error, "can't accept connections");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
