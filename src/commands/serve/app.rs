//! Wiring: what is built from the settings, in which order it starts, and in which order it stops.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, KeyCounts, KeysError};
use crate::config::{SecretFile, Settings};
use crate::embedded_redis::{EmbeddedError, EmbeddedRedis};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::History;
use crate::estimator::overlap::Overlaps;
use crate::http::server::Server;
use crate::http::{AllowedHosts, AppState, Origins, Router, Tls, TlsError};
use crate::jobs::{HealthMonitor, HistoryRecorder, Pruner, PrunerError};
use crate::store;
use crate::telemetry::Metrics;

/// The service, ready to run: it listens already, so connections made from now on wait and are not refused.
#[derive(Debug)]
pub struct App {
    front: Front,
    /// Probes and metrics, if they have a listener of their own.
    admin: Option<Front>,
    health: HealthMonitor,
    recorder: HistoryRecorder,
    reloader: Reloader,
    server: Server,
    shutdown_delay: Duration,
    pruner: Pruner,
    redis: Option<EmbeddedRedis>,
    ending: CancellationToken,
}

/// Reads files again that may change while the service runs.
#[derive(Debug, Clone)]
pub struct Reloader {
    authenticator: Arc<Authenticator>,
    tls: Option<Tls>,
    secret_files: Vec<SecretFile>,
    metrics: Arc<Metrics>,
}

impl Reloader {
    /// Reads them. A file that can't be used is logged, and what was read before stays.
    pub fn reload(&self) {
        let keys = self.authenticator.reload();
        match &keys {
            Ok(()) => tracing::info!("read the keys again"),
            Err(error) => tracing::error!(%error, "can't read the keys again; those from before stay"),
        }
        let certificate = self.tls.as_ref().map(Tls::reload);
        match &certificate {
            None => {}
            Some(Ok(())) => tracing::info!("read the certificate again"),
            Some(Err(error)) => tracing::error!(%error, "can't read the certificate again; the one from before stays"),
        }
        self.report(keys.is_ok(), certificate.is_none_or(|certificate| certificate.is_ok()));
    }

    /// Measures what is in force, and warns of what everybody may read or write. The files were just read, with or without success.
    fn report(&self, keys_are_read: bool, certificate_is_read: bool) {
        let http = &self.metrics.http;
        let KeyCounts { api, jwt } = self.authenticator.key_counts();
        for (kind, count) in [("api", api), ("jwt", jwt)] {
            if let Some(count) = count {
                http.set_auth_keys(kind, count);
            }
        }
        if !self.authenticator.is_open() {
            http.set_reload_successful("keys", keys_are_read);
        }
        if self.tls.is_some() {
            http.set_reload_successful("certificate", certificate_is_read);
        }
        if api == Some(0) {
            tracing::warn!("api_keys_file has no key, so that every API key is refused; add keys and send SIGHUP");
        }
        for exposure in self.secret_files.iter().filter_map(SecretFile::exposure) {
            tracing::warn!("{exposure}");
        }
    }
}

/// Listener and its router.
#[derive(Debug)]
struct Front {
    listener: TcpListener,
    local_addr: SocketAddr,
    router: Router,
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
    /// The database has keys that may be another program's.
    #[error("{0}")]
    Unrecorded(store::Error),
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
        let authenticator = Arc::new(Authenticator::load(settings.auth())?);
        let tls = settings.tls_files().map(Tls::load).transpose()?;
        // Before Redis, so that a second service on the same address ends at once.
        let front = listen("listen", settings.listen).await?;
        let admin = match settings.admin_listen {
            Some(address) => Some(listen("admin_listen", address).await?),
            None => None,
        };

        let (redis, servers) = match settings.deployment() {
            Some(servers) => (None, servers),
            None => {
                let redis = EmbeddedRedis::start(&settings.data_dir, settings.redis_max_memory).await?;
                let url = redis.url();
                (Some(redis), url.into())
            }
        };
        let key_prefix = settings.redis_key_prefix.as_str();
        tracing::info!(
            redis = %servers,
            key_prefix = (!key_prefix.is_empty()).then_some(key_prefix),
            max_memory = settings.redis_max_memory.map(tracing::field::display),
            window = %settings.window,
            prune_schedule = %settings.prune_schedule,
            "using Redis"
        );
        let metrics = Arc::<Metrics>::default();
        let store = settings.open_store(servers, Arc::clone(&metrics)).map_err(AppError::Redis)?;
        let store = store.with_partitions(settings.partitions).with_window(settings.window);
        let history = History::new(store.clone(), settings.history_interval);
        let overlaps = Overlaps::new(store.clone(), settings.window, settings.overlap_limits());
        let estimator = Estimator::new(store, settings.window).with_max_lists(settings.max_lists);
        // Before the first request. Of a Redis that is away the sampler hears again.
        match estimator.sync(&clock).await {
            Err(error @ store::Error::Partitions { .. }) => return Err(AppError::Partitions(error)),
            Err(error @ store::Error::Unrecorded { .. }) => return Err(AppError::Unrecorded(error)),
            _ => {}
        }
        let (is_stopping, ending) = (Arc::<AtomicBool>::default(), CancellationToken::new());
        let state = Arc::new(AppState {
            estimator: estimator.clone(),
            history: history.clone(),
            overlaps,
            clock: clock.clone(),
            authenticator: Arc::clone(&authenticator),
            is_tls: tls.is_some(),
            limits: settings.request_limits(),
            trace_ratio: settings.traces().map(|traces| traces.ratio),
            in_flight: Semaphore::new(settings.request_limits().requests),
            metrics: Arc::clone(&metrics),
            is_stopping: Arc::clone(&is_stopping),
            ending: ending.clone(),
        });
        let is_local = front.1.ip().to_canonical().is_loopback();
        let hosts = match &settings.allowed_hosts {
            Some(hosts) => hosts.clone(),
            // A browser on this machine must not be led here by a site that has its own name resolve to this address.
            None if is_local && authenticator.is_open() => AllowedHosts::LOCAL,
            None => AllowedHosts::Any,
        };
        if authenticator.is_open() && settings.cors_origins == Some(Origins::Any) {
            tracing::warn!(
                "every site that somebody opens in a browser may read, write and delete: cors_origins is *, and neither \
                 api_keys_file nor jwt_algorithm is set; name the origins or set one of these"
            );
        }
        if authenticator.is_open() && is_local && settings.allowed_hosts == Some(AllowedHosts::Any) {
            tracing::warn!(
                "a site that somebody opens in a browser on this machine may read, write and delete, by a name that it has lead to \
                 this address: allowed_hosts is *, and neither api_keys_file nor jwt_algorithm is set; name the hosts or set one \
                 of these"
            );
        }
        let reloader = Reloader {
            authenticator: Arc::clone(&authenticator),
            tls: tls.clone(),
            secret_files: settings.secret_files(),
            metrics: Arc::clone(&metrics),
        };
        reloader.report(true, true);
        let router = Router::api(Arc::clone(&state), settings.cors_origins.as_ref(), hosts, admin.is_some());
        let admin = admin.map(|(listener, local_addr)| Front { listener, local_addr, router: Router::admin(state) });
        Ok(Self {
            front: Front { listener: front.0, local_addr: front.1, router },
            admin,
            health: HealthMonitor::new(estimator.clone(), clock.clone(), settings.metered_segments.clone()),
            recorder: HistoryRecorder::new(estimator.clone(), clock.clone(), history),
            reloader,
            server: Server { limits: settings.connection_limits(), metrics, tls, is_stopping },
            shutdown_delay: settings.shutdown_delay,
            pruner: Pruner::new(estimator, clock, settings.prune_schedule.clone()),
            redis,
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
        self.reloader.clone()
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
        let Self { front, admin, health, recorder, reloader, server, shutdown_delay, pruner, mut redis, ending } = self;
        let (stop_serving, stop_pruning) = (CancellationToken::new(), CancellationToken::new());
        let admin_addr = admin.as_ref().map(|admin| tracing::field::display(admin.local_addr));
        if reloader.authenticator.is_open() && !front.local_addr.ip().to_canonical().is_loopback() {
            tracing::warn!(
                address = %front.local_addr,
                "everybody who reaches this address may do everything: neither api_keys_file nor jwt_algorithm is set"
            );
        }
        tracing::info!(address = %front.local_addr, admin_address = admin_addr, "serving");
        // Ends before the private Redis, whose end is no failure.
        let mut asking = JoinSet::new();
        asking.spawn(health.run());
        asking.spawn(recorder.run());
        // Goes on to the very end, so that whoever probes sees the stopping. It is over when it is dropped.
        let mut beside = JoinSet::new();
        if let Some(Front { listener, router, .. }) = admin {
            // In plain text: whoever probes knows no name that a certificate could be for.
            let server = Server { tls: None, ..server.clone() };
            beside.spawn(server.serve(listener, router, CancellationToken::new()));
        }

        let outcome = {
            let (drain_limit, is_stopping) = (server.limits.drain, Arc::clone(&server.is_stopping));
            let serving = server.serve(front.listener, front.router, stop_serving.clone());
            let pruning = pruner.run(stop_pruning.clone());
            let supervising = supervise(&mut redis);
            tokio::pin!(serving, pruning, supervising);

            let outcome = tokio::select! {
                () = shutdown => Ok(()),
                () = &mut serving => unreachable!("the server ends only when it is told to stop"),
                outcome = &mut pruning => outcome.map_err(AppError::from),
                error = &mut supervising => Err(error.into()),
                ended = asking.join_next() => Err(AppError::Background(format!("{ended:?}"))),
                Some(ended) = beside.join_next() => Err(AppError::Background(format!("{ended:?}"))),
            };

            is_stopping.store(true, Ordering::Relaxed);
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

        asking.shutdown().await;
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
    let listener = match address {
        SocketAddr::V6(every) if every.ip().is_unspecified() => bind_or_ipv4(every, bind_both_families).await,
        _ => TcpListener::bind(address).await,
    };
    let listener = listener.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// Binds `[::]` by `bind`, or `0.0.0.0` where there is no IPv6, so that an image can have one address for all machines.
async fn bind_or_ipv4(
    address: SocketAddrV6,
    bind: impl FnOnce(SocketAddrV6) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    match bind(address) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable
                || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            tracing::info!(%address, "this machine has no IPv6; listening on IPv4 alone");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Binds `[::]` for IPv4, too, whatever `net.ipv6.bindv6only` says.
fn bind_both_families(address: SocketAddrV6) -> io::Result<TcpListener> {
    /// The system cuts it down to what it allows, as for [`TcpListener::bind`].
    const BACKLOG: u32 = 65_535;
    let socket = TcpSocket::new_v6()?;
    SockRef::from(&socket).set_only_v6(false)?;
    // A restart must not wait for connections of before.
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(BACKLOG)
}

/// Ends when the private Redis, if there is one, can't be kept running.
async fn supervise(redis: &mut Option<EmbeddedRedis>) -> EmbeddedError {
    match redis {
        Some(redis) => redis.supervise().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_such_family(io::Error::from(Errno::AFNOSUPPORT))]
    #[case::no_such_address(io::Error::from(io::ErrorKind::AddrNotAvailable))]
    #[tokio::test]
    async fn bind_takes_ipv4_where_there_is_no_ipv6(#[case] error: io::Error) {
        let every = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let listener = bind_or_ipv4(every, |_| Err(error)).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    }

    #[tokio::test]
    async fn bind_tells_any_other_failure() {
        let every = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let error = bind_or_ipv4(every, |_| Err(io::ErrorKind::AddrInUse.into())).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
