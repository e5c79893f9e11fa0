//! Wiring: what is built from the settings, in which order it starts, and in which order it stops.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::estimator::Estimator;
use crate::http::{self, AppState, server};
use crate::pruner::{Pruner, PrunerError};
use crate::settings::Settings;
use crate::store::embedded::{EmbeddedError, EmbeddedRedis};
use crate::store::{Connection, Store};

/// The service, ready to run: it listens already, so connections made from now on wait and are not refused.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    local_addr: SocketAddr,
    router: Router,
    estimator: Estimator,
    limits: server::Limits,
    shutdown_delay: Duration,
    pruner: Pruner,
    redis: Option<EmbeddedRedis>,
    stopping: CancellationToken,
    ending: CancellationToken,
}

/// Why the service could not start, or ended by itself: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address can't be listened on.
    #[error("listen: can't listen on {address}: {source}; choose another address with --listen or ESTIMATOR_LISTEN")]
    Listen {
        /// As set.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file for the connection to Redis can't be used; the text names the setting.
    #[error("{0}")]
    Redis(String),
    /// The private Redis doesn't run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The prune job doesn't run.
    #[error(transparent)]
    Pruner(#[from] PrunerError),
}

impl App {
    /// Builds the service. A private Redis is started and waited for. A Redis that was named is not: the service starts
    /// without it, says so in the log and at `/readyz`, and uses it as soon as it is there.
    ///
    /// # Errors
    ///
    /// An [`AppError`] when the address is taken, a file for Redis can't be used or the private Redis doesn't start.
    pub async fn build(settings: &Settings) -> Result<Self, AppError> {
        let address = settings.listen;
        let failed = |source| AppError::Listen { address, source };
        // Before Redis, so that a second service on the same address ends at once.
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;

        let (redis, redis_url) = match &settings.redis_url {
            Some(url) => (None, url.clone()),
            None => {
                let redis = EmbeddedRedis::start(&settings.data_dir).await?;
                let url = redis.url();
                (Some(redis), url)
            }
        };
        tracing::info!(
            redis = %redis_url,
            window = %settings.window,
            prune_schedule = %settings.prune_schedule,
            "using Redis"
        );
        let connection = Connection::new(redis_url, settings.store_limits()).map_err(AppError::Redis)?;
        let estimator = Estimator::new(Store::new(connection), settings.window);
        let (stopping, ending) = (CancellationToken::new(), CancellationToken::new());
        let state = Arc::new(AppState {
            estimator: estimator.clone(),
            body_timeout: settings.body_timeout,
            stopping: stopping.clone(),
            ending: ending.clone(),
        });
        Ok(Self {
            listener,
            local_addr,
            router: http::router(state),
            limits: server::Limits { header: settings.header_timeout, drain: settings.drain_timeout },
            shutdown_delay: settings.shutdown_delay,
            pruner: Pruner::new(estimator.clone(), settings.prune_schedule.clone()),
            estimator,
            redis,
            stopping,
            ending,
        })
    }

    /// The address that the service listens on, with the port that the system chose if it was set to 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready, then stops in order: readyz turns 503, after the delay no connection is
    /// accepted any more, requests in flight finish, the pruner ends, the private Redis ends.
    ///
    /// The pruner and the private Redis belong to the service: should one end by itself and not come back, the service
    /// stops in the same order and says why.
    ///
    /// # Errors
    ///
    /// An [`AppError`] when the service stopped for another reason than `shutdown`.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self {
            listener,
            local_addr,
            router,
            estimator,
            limits,
            shutdown_delay,
            pruner,
            mut redis,
            stopping,
            ending,
        } = self;
        let (stop_serving, stop_pruning) = (CancellationToken::new(), CancellationToken::new());
        tracing::info!(address = %local_addr, "serving");
        // So that a Redis that can't be reached is in the log from the start: the store writes it there.
        tokio::spawn(async move { estimator.ready().await });

        let outcome = {
            let serving = server::serve(listener, router, limits, stop_serving.clone());
            let pruning = pruner.run(stop_pruning.clone());
            let supervising = supervise(&mut redis);
            tokio::pin!(serving, pruning, supervising);

            let outcome = tokio::select! {
                () = shutdown => Ok(()),
                () = &mut serving => unreachable!("the server ends only when it is told to stop"),
                outcome = &mut pruning => outcome.map_err(AppError::from),
                error = &mut supervising => Err(error.into()),
            };

            stopping.cancel();
            let delay = if outcome.is_ok() { shutdown_delay } else { Duration::ZERO };
            let drain = async {
                // Served all through the delay, which is for those who still come.
                let delayed_stop = async {
                    tokio::time::sleep(delay).await;
                    stop_serving.cancel();
                };
                // A stream of visits may have no end: it gets half of the time for the drain, and the other half to answer.
                let end_streams = async {
                    tokio::time::sleep(delay + limits.drain / 2).await;
                    ending.cancel();
                    pending::<()>().await;
                };
                tokio::select! {
                    _ = async { tokio::join!(delayed_stop, &mut serving) } => {}
                    () = end_streams => {}
                }
                stop_pruning.cancel();
            };
            match outcome {
                // The pruner and Redis go on working beside the drain.
                Ok(()) => {
                    let redis_lost = async {
                        let error = supervising.await;
                        tracing::error!(%error, "private Redis is lost; what is in flight is answered with 503");
                        pending().await
                    };
                    tokio::select! {
                        ((), pruned) = async { tokio::join!(drain, pruning) } => pruned.map_err(AppError::from),
                        never = redis_lost => never,
                    }
                }
                // One of them is what failed.
                failed => {
                    drain.await;
                    failed
                }
            }
        };

        if let Some(redis) = redis {
            redis.stop().await;
        }
        tracing::info!("stopped");
        outcome
    }
}

/// Ends when the private Redis, if there is one, can't be kept running.
async fn supervise(redis: &mut Option<EmbeddedRedis>) -> EmbeddedError {
    match redis {
        Some(redis) => redis.supervise().await,
        None => pending().await,
    }
}
