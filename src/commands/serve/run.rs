//! Starts the parts of the service in order, and stops them in order.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::app::{App, AppError};
use super::listener::BoundListener;
use crate::embedded_redis::{EmbeddedError, EmbeddedRedis};
use crate::http::server::Server;

impl App {
    /// Serves until `shutdown` is ready, then stops in order: `/readyz` turns 503, after the delay the listener closes,
    /// requests in flight complete, the pruner stops, the private Redis stops.
    ///
    /// If the pruner or the private Redis ends by itself and can't be restarted, the service stops in the same order.
    ///
    /// # Errors
    ///
    /// An [`AppError`] if the service stopped for another reason than `shutdown`.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { public, admin, health, recorder, server, shutdown_delay, pruner, .. } = self;
        let Self { is_open, reloads, file_checks, url, mut redis, overlaps, end_streams, .. } = self;
        let (stop_serving, stop_pruning) = (CancellationToken::new(), CancellationToken::new());
        let admin_addr = admin.as_ref().map(|(listener, _)| tracing::field::display(listener.local_addr));
        let (public, routes) = public;
        if is_open && !public.is_local() {
            tracing::warn!(
                address = %public.local_addr,
                "anyone who can reach this address has full access: neither api_keys_file nor jwt_algorithm is set"
            );
        }
        // The build of the tests: it takes a fraction of the time to build, and several times the CPU time to run.
        let build = cfg!(debug_assertions).then_some("not optimized; for load use make run RELEASE=1");
        tracing::info!(url, address = %public.local_addr, admin_address = admin_addr, build, "serving");
        // Stopped before the private Redis, whose end would be an outage to them.
        let mut monitors = JoinSet::new();
        monitors.spawn(health.run());
        monitors.spawn(recorder.run());
        monitors.spawn(reloads.run(file_checks));
        // Serves probes until the end of the shutdown. Dropping it ends it.
        let mut admin_server = JoinSet::new();
        if let Some((BoundListener { listener, .. }, routes)) = admin {
            // In plain text: probes connect by address, and a certificate is for a name.
            let server = Server { tls: None, ..server.clone() };
            admin_server.spawn(server.serve(listener, routes, CancellationToken::new()));
        }

        let outcome = {
            let (drain_timeout, is_stopping) = (server.limits.drain, Arc::clone(&server.is_stopping));
            let serving = server.serve(public.listener, routes, stop_serving.clone());
            let pruning = pruner.run(stop_pruning.clone());
            let supervising = supervise(&mut redis);
            tokio::pin!(serving, pruning, supervising);

            let outcome = tokio::select! {
                () = shutdown => Ok(()),
                () = &mut serving => unreachable!("the server runs until its token is cancelled"),
                outcome = &mut pruning => outcome.map_err(AppError::from),
                error = &mut supervising => Err(error.into()),
                ended = monitors.join_next() => Err(AppError::Background(format!("{ended:?}"))),
                Some(ended) = admin_server.join_next() => Err(AppError::Background(format!("{ended:?}"))),
            };

            is_stopping.store(true, Ordering::Relaxed);
            let delay = if outcome.is_ok() { shutdown_delay } else { Duration::ZERO };
            let drain = async {
                // New connections are still served during the delay.
                let delayed_stop = async {
                    tokio::time::sleep(delay).await;
                    // Overlaps that wait could outlast the drain.
                    overlaps.close();
                    stop_serving.cancel();
                };
                // A stream of visits may be endless. It gets half of the drain timeout, and the other half for its
                // answer.
                let end_endless_streams = async {
                    tokio::time::sleep(delay + drain_timeout / 2).await;
                    end_streams.cancel();
                    pending::<()>().await;
                };
                tokio::select! {
                    _ = async { tokio::join!(delayed_stop, &mut serving) } => {}
                    () = end_endless_streams => {}
                }
                stop_pruning.cancel();
            };
            match outcome {
                // The pruner and Redis work during the drain.
                Ok(()) => {
                    let redis_lost = async {
                        let error = supervising.await;
                        tracing::error!(%error, "private Redis failed during the shutdown, answering 503");
                        pending().await
                    };
                    tokio::select! {
                        ((), pruned) = async { tokio::join!(drain, pruning) } => pruned.map_err(AppError::from),
                        never = redis_lost => never,
                    }
                }
                // The pruner or Redis has failed.
                failed => {
                    drain.await;
                    failed
                }
            }
        };

        monitors.shutdown().await;
        if let Some(redis) = redis {
            redis.stop().await;
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Returns if the private Redis can't be kept running. Without one, never returns.
async fn supervise(redis: &mut Option<EmbeddedRedis>) -> EmbeddedError {
    match redis {
        Some(redis) => redis.supervise().await,
        None => pending().await,
    }
}
