//! Serves one connection, with the timeout of heads.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::head_timer::HeadTimer;
use super::http2;
use super::preface::PrefaceReader;
use super::stream::Stream;
use super::tls::Tls;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a connection is served with.
pub struct ConnectionServer<S> {
    pub http: http1::Builder,
    pub service: S,
    /// If it is cancelled, the connection ends after the request in flight, or immediately if there is none.
    pub stop: CancellationToken,
    pub head_timeout: Duration,
}

impl<S: HttpService<Incoming, ResBody = Body, Error = Infallible>> ConnectionServer<S> {
    /// Serves a connection with TLS to its end. The handshake has the timeout of a head as well.
    pub async fn serve_with_tls(self, stream: Stream, tls: &Tls) -> Result<(), BoxError> {
        let handshake = timeout(self.head_timeout, tls.accept(stream));
        match self.stop.run_until_cancelled(handshake).await {
            Some(stream) => self.serve(stream??).await,
            // No request is in flight yet.
            None => Ok(()),
        }
    }

    /// Serves a connection to its end. Must not move to another task.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    pub fn serve(
        mut self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> impl Future<Output = Result<(), BoxError>> {
        async move {
            let (timer, mut head_deadline) = HeadTimer::new(self.head_timeout);
            let served = {
                let io = TokioIo::new(PrefaceReader::new(&mut stream));
                let connection = self.http.timer(timer).serve_connection(io, self.service);
                let (mut connection, mut cancelled) = (pin!(connection), pin!(unconstrained(self.stop.cancelled())));
                let (mut is_registered, mut is_draining) = (false, false);
                poll_fn(|context| {
                    loop {
                        if let Poll::Ready(served) = connection.as_mut().poll(context) {
                            return Poll::Ready(served);
                        }
                        // `select!` would poll the cancellation whenever the connection is woken, which takes longer
                        // than this check. The waker that the first poll registers stays valid, because the task stays
                        // the same.
                        if !is_draining && (!is_registered || self.stop.is_cancelled()) {
                            is_registered = true;
                            is_draining = cancelled.as_mut().poll(context).is_ready();
                            if is_draining {
                                connection.as_mut().graceful_shutdown();
                                continue;
                            }
                        }
                        // If the deadline has passed, the next poll of the connection finds its timer elapsed.
                        if head_deadline.poll_passed(context).is_pending() {
                            return Poll::Pending;
                        }
                    }
                })
                .await
            };
            if served.as_ref().is_err_and(hyper::Error::is_parse_version_h2) {
                // Boxed: keeps its buffer out of every connection's future.
                timeout(self.head_timeout, Box::pin(http2::refuse(&mut stream))).await??;
            }
            Ok(served?)
        }
    }
}
