//! The accept loop: one task per connection, with the timeouts and the drain deadline that `axum::serve` lacks.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::head_timer::HeadTimer;
use super::http2;
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
            let router = routes.router_for(&request);
            let is_stopping = Arc::clone(&is_stopping);
            async move {
                let mut response = answer(router, request.map(Body::new)).await;
                if is_stopping.load(Ordering::Relaxed) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = http1::Builder::new();
        http.header_read_timeout(limits.header).max_buf_size(limits.head_bytes);
        // A vectored write costs the kernel more than the copy of a small body.
        http.writev(false);
        let mut listener = Listener::new(listener, limits.connections, metrics);
        // Aborts the remaining tasks when it is dropped.
        let mut tasks = JoinSet::new();

        loop {
            let (stream, open) = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let (http, service, tls, stop) = (http.clone(), service.clone(), tls.clone(), stop.clone());
            let stream = Stream::new(stream, limits.header);
            tasks.spawn(async move {
                let ended = match tls {
                    None => serve_connection(http, stream, service, &stop, limits.header).await,
                    // The timeout of a head includes the handshake.
                    Some(tls) => match timeout(limits.header, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve_connection(http, stream, service, &stop, limits.header).await,
                        Ok(Err(error)) => Err(error.into()),
                        Err(elapsed) => Err(elapsed.into()),
                    },
                };
                if let Err(error) = ended {
                    // The client disconnected, or sent invalid HTTP, to which hyper has responded.
                    tracing::debug!(error, "connection ended");
                }
                drop(open);
            });
        }

        drop(listener);
        while tasks.try_join_next().is_some() {}
        tracing::info!(connections = tasks.len(), "draining");
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(limits.drain, ended).await.is_err() {
            tracing::warn!(limit = ?limits.drain, "aborting requests in flight after the drain timeout");
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection to its end. If `stop` is cancelled, the connection ends after the request in flight, or
/// immediately if there is none. Registers the waker of its task once, so it must not move to another task.
async fn serve_connection<S>(
    mut http: http1::Builder,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    service: S,
    stop: &CancellationToken,
    head_timeout: Duration,
) -> Result<(), BoxError>
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let (timer, mut head_timeout_over) = HeadTimer::new(head_timeout);
    let ended = {
        let connection = http.timer(timer).serve_connection(TokioIo::new(&mut stream), service);
        let (mut connection, mut stopped) = (pin!(connection), pin!(stop.cancelled()));
        // The task's waker is registered once, at the first turn.
        let (mut is_registered, mut is_stopping) = (false, false);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                if !is_stopping && (!is_registered || stop.is_cancelled()) {
                    is_registered = true;
                    is_stopping = stopped.as_mut().poll(context).is_ready();
                    if is_stopping {
                        connection.as_mut().graceful_shutdown();
                        continue;
                    }
                }
                if !head_timeout_over.poll_over(context) {
                    return Poll::Pending;
                }
            }
        })
        .await
    };
    if ended.as_ref().is_err_and(hyper::Error::is_parse_version_h2) {
        timeout(head_timeout, http2::refuse(&mut stream)).await??;
    }
    Ok(ended?)
}
