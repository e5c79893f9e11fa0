//! Wiring: what is built from the settings, in which order it starts, and in which order it stops.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Gate, KeysError};
use crate::clock::Clock;
use crate::estimator::Estimator;
use crate::history::{History, Recorder};
use crate::http::server::Server;
use crate::http::{AppState, Site, Tls, TlsError};
use crate::overlap::Overlaps;
use crate::pruner::{Pruner, PrunerError};
use crate::sampler::Sampler;
use crate::settings::Settings;
use crate::store::embedded::{EmbeddedError, EmbeddedRedis};
use crate::store::{self, Connection, Store};
use crate::telemetry::Metrics;

/// The service, ready to run: it listens already, so connections made from now on wait and are not refused.
#[derive(Debug)]
pub struct App {
    front: Front,
    /// Probes and metrics, if they have a listener of their own.
    admin: Option<Front>,
    sampler: Sampler,
    recorder: Recorder,
    gate: Arc<Gate>,
    server: Server,
    shutdown_delay: Duration,
    pruner: Pruner,
    redis: Option<EmbeddedRedis>,
    stopping: CancellationToken,
    ending: CancellationToken,
}

/// Reads files again that may change while the service runs.
#[derive(Debug, Clone)]
pub struct Reloader {
    gate: Arc<Gate>,
    tls: Option<Tls>,
}

impl Reloader {
    /// Reads them. A file that can't be used is logged, and what was read before stays.
    pub fn reload(&self) {
        match self.gate.reload() {
            Ok(()) => tracing::info!("read the keys again"),
            Err(error) => tracing::error!(%error, "can't read the keys again; those from before stay"),
        }
        match self.tls.as_ref().map(Tls::reload) {
            None => {}
            Some(Ok(())) => tracing::info!("read the certificate again"),
            Some(Err(error)) => tracing::error!(%error, "can't read the certificate again; the one from before stays"),
        }
    }
}

/// Where something is served, and what.
#[derive(Debug)]
struct Front {
    listener: TcpListener,
    local_addr: SocketAddr,
    site: Site,
}

/// Why the service could not start, or ended by itself: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address can't be listened on.
    #[error("{setting}: can't listen on {address}: {source}; set another address")]
    Listen {
        /// The setting with the address.
        setting: &'static str,
        /// As set.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file for the connection to Redis can't be used; the text names the setting.
    #[error("{0}")]
    Redis(String),
    /// The data set has another number of partitions.
    #[error("partitions: {0}")]
    Partitions(store::Error),
    /// The keys that tokens are checked with can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The private Redis doesn't run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// What goes on beside the serving has ended, which only a panic does.
    #[error("a background task ended: {0}")]
    Background(String),
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
        Self::build_with_clock(settings, Clock::system()).await
    }

    /// As [`Self::build`], for a machine whose clock is `clock`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub async fn build_with_clock(settings: &Settings, clock: Clock) -> Result<Self, AppError> {
        let gate = Arc::new(Gate::load(settings.auth.clone())?);
        let tls = settings.tls.clone().map(Tls::load).transpose()?;
        // Before Redis, so that a second service on the same address ends at once.
        let front = listen("listen", settings.listen).await?;
        let admin = match settings.admin_listen {
            Some(address) => Some(listen("admin_listen", address).await?),
            None => None,
        };

        let (redis, servers) = match &settings.redis {
            Some(servers) => (None, servers.clone()),
            None => {
                let redis = EmbeddedRedis::start(&settings.data_dir).await?;
                let url = redis.url();
                (Some(redis), url.into())
            }
        };
        tracing::info!(
            redis = %servers,
            window = %settings.window,
            prune_schedule = %settings.prune_schedule,
            "using Redis"
        );
        let metrics = Arc::<Metrics>::default();
        let connection = Connection::new(servers, settings.store_limits(), Arc::clone(&metrics));
        let connection = connection.map_err(AppError::Redis)?;
        let store = Store::new(connection).with_acks(settings.write_acks).with_partitions(settings.partitions);
        let store = store.with_max_segments(settings.max_segments as u64);
        let history = History::new(store.clone(), settings.history_interval);
        let overlaps = Overlaps::new(store.clone(), settings.window, settings.overlap_limits());
        let estimator = Estimator::new(store, settings.window);
        // Before the first request. Of a Redis that is away the sampler hears again.
        if let Err(error @ store::Error::Partitions { .. }) = estimator.compare_clock(&clock).await {
            return Err(AppError::Partitions(error));
        }
        let (stopping, ending) = (CancellationToken::new(), CancellationToken::new());
        let state = Arc::new(AppState {
            estimator: estimator.clone(),
            history: history.clone(),
            overlaps,
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            is_tls: tls.is_some(),
            limits: settings.request_limits(),
            trace_ratio: settings.traces.as_ref().map(|traces| traces.ratio),
            under_way: AtomicUsize::new(0),
            stopping: stopping.clone(),
            ending: ending.clone(),
        });
        let site = Site::of_api(Arc::clone(&state), settings.cors_origins.as_ref(), admin.is_some());
        let admin = admin.map(|(listener, local_addr)| Front { listener, local_addr, site: Site::of_admin(state) });
        Ok(Self {
            front: Front { listener: front.0, local_addr: front.1, site },
            admin,
            sampler: Sampler::new(estimator.clone(), clock.clone(), settings.metered_segments.clone()),
            recorder: Recorder::new(estimator.clone(), clock.clone(), history),
            gate,
            server: Server { limits: settings.server_limits(), metrics, tls },
            shutdown_delay: settings.shutdown_delay,
            pruner: Pruner::new(estimator, clock, settings.prune_schedule.clone()),
            redis,
            stopping,
            ending,
        })
    }

    /// The address that the service listens on, with the port that the system chose if it was set to 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.front.local_addr
    }

    /// The address that probes and metrics are served on, if it is another.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.local_addr)
    }

    /// What reads files again while the service runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { gate: Arc::clone(&self.gate), tls: self.server.tls.clone() }
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
        let Self { front, admin, sampler, recorder, gate, server, shutdown_delay, pruner, mut redis, stopping, ending } =
            self;
        let (stop_serving, stop_pruning) = (CancellationToken::new(), CancellationToken::new());
        let admin_addr = admin.as_ref().map(|admin| tracing::field::display(admin.local_addr));
        if gate.is_open() && !front.local_addr.ip().is_loopback() {
            tracing::warn!(
                address = %front.local_addr,
                "everybody who reaches this address may do everything: neither api_keys_file nor jwt_algorithm is set"
            );
        }
        tracing::info!(address = %front.local_addr, admin_address = admin_addr, "serving");
        // These go on to the very end, so that whoever probes sees the stopping. It is over when they are dropped.
        let mut beside = JoinSet::new();
        beside.spawn(sampler.run());
        beside.spawn(recorder.run());
        if let Some(Front { listener, site, .. }) = admin {
            // In plain text: whoever probes knows no name that a certificate could be for.
            let server = Server { tls: None, ..server.clone() };
            beside.spawn(server.serve(listener, site, CancellationToken::new()));
        }

        let outcome = {
            let drain_limit = server.limits.drain;
            let serving = server.serve(front.listener, front.site, stop_serving.clone());
            let pruning = pruner.run(stop_pruning.clone());
            let supervising = supervise(&mut redis);
            tokio::pin!(serving, pruning, supervising);

            let outcome = tokio::select! {
                () = shutdown => Ok(()),
                () = &mut serving => unreachable!("the server ends only when it is told to stop"),
                outcome = &mut pruning => outcome.map_err(AppError::from),
                error = &mut supervising => Err(error.into()),
                ended = beside.join_next() => Err(AppError::Background(format!("{ended:?}"))),
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
                    tokio::time::sleep(delay + drain_limit / 2).await;
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

/// Listens on the `address` that `setting` has; gives the address with its port, too.
async fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { setting, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// Ends when the private Redis, if there is one, can't be kept running.
async fn supervise(redis: &mut Option<EmbeddedRedis>) -> EmbeddedError {
    match redis {
        Some(redis) => redis.supervise().await,
        None => pending().await,
    }
}
