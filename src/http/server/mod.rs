//! The accept loop, one task per connection, with the time limits and the drain that `axum::serve` doesn't have.
//!
//! HTTP/1.1 alone: hyper-util's automatic choice between HTTP/1 and HTTP/2 runs no timer while it waits for the first
//! bytes, so a client that sends none would be held for ever. Behind a proxy nothing is lost by it.

pub(super) mod host;
mod http2;
mod stream;
mod tls;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::host::AllowedHosts;
use self::stream::Stream;
pub use self::tls::{Tls, TlsError, TlsFiles};
use super::Site;
use super::middleware::answer::answer;
use crate::telemetry::Metrics;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a request's head to arrive, counted from the moment the connection waits for it: so also how long a
    /// connection may be idle. Also for a client to take a part of its answer.
    pub header: Duration,
    /// For the requests in flight to finish once the server stops.
    pub drain: Duration,
    /// The longest head, in bytes, which is also what a connection reads ahead of its handler. hyper's own 400 KiB would have a
    /// stream of visits come in pieces that take milliseconds each.
    pub head_bytes: usize,
    /// Connections that may be open at a time. Those that come then wait in the system's queue, and are refused when that
    /// is full.
    pub connections: usize,
}

/// Serves HTTP.
#[derive(Debug, Clone)]
pub struct Server {
    /// What its connections may take.
    pub limits: Limits,
    /// What counts its connections.
    pub metrics: Arc<Metrics>,
    /// TLS, or plain text.
    pub tls: Option<Tls>,
    /// Set when the service starts to stop, for the rest of which it goes on serving: from then on each answer closes its connection,
    /// so that clients leave before connections are closed under their next request.
    pub is_stopping: Arc<AtomicBool>,
}

impl Server {
    /// Serves `site` on `listener` until `stop` is cancelled; then accepts nothing more, lets the requests in flight
    /// finish, and returns when they have or when the time for it is over.
    pub async fn serve(self, listener: TcpListener, site: Site, stop: CancellationToken) {
        let Self { limits, metrics, tls, is_stopping } = self;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let router = site.router_for(&request);
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
        http.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(limits.head_bytes);
        let mut door =
            Door { listener, places: Arc::new(Semaphore::new(limits.connections)), is_full: false, accepts: true };
        // Owns the tasks: whatever is left of them when this function ends, or is dropped, is cut off.
        let mut tasks = JoinSet::new();

        loop {
            let (stream, place) = tokio::select! {
                entered = door.next() => entered,
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let (http, service, tls, stop) = (http.clone(), service.clone(), tls.clone(), stop.clone());
            let open = Open::new(&metrics, place);
            let stream = Stream::new(stream, limits.header);
            tasks.spawn(async move {
                let ended = match tls {
                    None => serve_connection(&http, stream, service, &stop, limits.header).await,
                    // A handshake is the first part of a request's head.
                    Some(tls) => match timeout(limits.header, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve_connection(&http, stream, service, &stop, limits.header).await,
                        Ok(Err(error)) => Err(error.into()),
                        Err(late) => Err(late.into()),
                    },
                };
                if let Err(error) = ended {
                    // The client went away, or sent what isn't HTTP: hyper has told it so.
                    tracing::debug!(error, "connection ended");
                }
                drop(open);
            });
        }

        drop(door);
        while tasks.try_join_next().is_some() {}
        tracing::info!(connections = tasks.len(), "draining");
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(limits.drain, ended).await.is_err() {
            tracing::warn!(limit = ?limits.drain, "requests still in flight are cut off");
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection to its end. Once `stop` is cancelled, that is after the request in flight, or at once if there is none.
async fn serve_connection<S>(
    http: &http1::Builder,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    service: S,
    stop: &CancellationToken,
    patience: Duration,
) -> Result<(), BoxError>
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let ended = {
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(&mut stream), service));
        tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if ended.as_ref().is_err_and(hyper::Error::is_parse_version_h2) {
        timeout(patience, http2::refuse(&mut stream)).await??;
    }
    Ok(ended?)
}

/// An open connection, counted, with its place among them.
struct Open {
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: &Arc<Metrics>, place: OwnedSemaphorePermit) -> Self {
        metrics.http.connected();
        Self { metrics: Arc::clone(metrics), _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.http.disconnected();
    }
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// Whether the last connection had to wait for a place, so that it is logged once.
    is_full: bool,
    /// Whether the last try to accept succeeded, so that a failure is logged once.
    accepts: bool,
}

impl Door {
    /// The next connection, once there is a place for it. Errors are of a connection that is gone already, or of a process
    /// that has no descriptor left: both pass, the second when connections close. May be dropped at any time.
    async fn next(&mut self) -> (TcpStream, OwnedSemaphorePermit) {
        /// While there is no descriptor, accepting fails at once; this keeps the loop from spinning.
        const PAUSE: Duration = Duration::from_millis(100);
        let place = self.place().await;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if !std::mem::replace(&mut self.accepts, true) {
                        tracing::info!("accepts connections again");
                    }
                    // Answers are small, and must not wait for the acknowledgement of the one before.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "can't set TCP_NODELAY");
                    }
                    return (stream, place);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if std::mem::replace(&mut self.accepts, false) {
                        tracing::error!(%error, "can't accept connections");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.is_full = false;
            return place;
        }
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!("max_connections are open; others wait");
        }
        Arc::clone(&self.places).acquire_owned().await.expect("nobody closes the semaphore")
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
