//! Builds the service from the settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::listener::{BoundListener, ListenError};
use super::reloaded_files::ReloadedFiles;
use super::reloader::{FileChecks, ReloadJob, Reloader};
use crate::auth::KeysError;
use crate::config::Settings;
use crate::embedded_redis::{EmbeddedError, EmbeddedRedis};
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::History;
use crate::estimator::overlap::Overlaps;
use crate::http::server::Server;
use crate::http::{AllowedHosts, AppState, Origins, ProbesListener, Routes, TlsError};
use crate::jobs::{HealthMonitor, HistoryRecorder, Pruner, PrunerError};
use crate::store;
use crate::telemetry::Metrics;

/// A service that is ready to run. It already listens, so connections wait until it runs.
#[derive(Debug)]
pub struct App {
    pub(super) public: (BoundListener, Routes),
    /// Probes and metrics, if they have their own listener.
    pub(super) admin: Option<(BoundListener, Routes)>,
    pub(super) health: HealthMonitor,
    pub(super) recorder: HistoryRecorder,
    pub(super) is_open: bool,
    pub(super) reloads: ReloadJob,
    pub(super) file_checks: FileChecks,
    /// The URL of the public listener, for people.
    pub(super) url: String,
    pub(super) server: Server,
    pub(super) shutdown_delay: Duration,
    pub(super) pruner: Pruner,
    pub(super) redis: Option<EmbeddedRedis>,
    pub(super) overlaps: Overlaps,
    pub(super) end_streams: CancellationToken,
}

/// Why the service failed to start or ended by itself, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address can't be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A file for the connection to Redis can't be used. The text names the setting.
    #[error("{0}")]
    Redis(String),
    /// The data set has another number of partitions.
    #[error("partitions: {0}")]
    Partitions(store::Error),
    /// Segments of the data set keep another number of users.
    #[error("max_members: {0}")]
    MaxMembers(store::Error),
    /// The database has keys that may belong to another program.
    #[error("{0}")]
    Unrecorded(store::Error),
    /// The keys that verify tokens can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The private Redis doesn't run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// A background task ended, which happens only after a panic.
    #[error("a background task ended: {0}")]
    Background(String),
    /// The prune job doesn't run.
    #[error(transparent)]
    Pruner(#[from] PrunerError),
}

impl App {
    /// Builds the service. Starts a private Redis and waits until it serves. With `redis_url` the service starts
    /// without waiting for Redis: it logs the outage, fails `/readyz`, and uses Redis as soon as it answers.
    ///
    /// # Errors
    ///
    /// An [`AppError`] if the address is taken, a file for Redis can't be used or the private Redis fails to start.
    pub async fn build(settings: &Settings) -> Result<Self, AppError> {
        Self::build_with_clock(settings, Clock::system()).await
    }

    /// As [`Self::build`], on a machine with the clock `clock`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub async fn build_with_clock(settings: &Settings, clock: Clock) -> Result<Self, AppError> {
        let metrics = Arc::<Metrics>::default();
        let (authenticator, keys) = ReloadedFiles::keys(settings.auth(), &metrics)?;
        let certificate = settings.tls_files().map(|files| ReloadedFiles::certificate(files, &metrics)).transpose()?;
        let (tls, certificate) = certificate.unzip();
        // Binds before Redis starts, so that a second service on the same address ends immediately.
        let public = BoundListener::bind("listen", settings.listen).await?;
        let admin = match settings.admin_listen {
            Some(address) => Some(BoundListener::bind("admin_listen", address).await?),
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
        let store = settings.open_store(servers, Arc::clone(&metrics)).map_err(AppError::Redis)?;
        let store = settings.require_layout(store).with_window(settings.window);
        let history = History::new(store.clone(), settings.history_interval);
        let overlaps = Overlaps::new(store.clone(), settings.window, settings.overlap_limits());
        let estimator = Estimator::new(store, settings.window).with_max_lists(settings.max_lists);
        let estimator = estimator.with_max_member_lists(settings.max_member_lists);
        // Synchronizes the clock before the first request. If Redis is down, the health monitor does it later.
        match estimator.sync(&clock).await {
            Err(error @ store::Error::Partitions { .. }) => return Err(AppError::Partitions(error)),
            Err(error @ store::Error::MaxMembers { .. }) => return Err(AppError::MaxMembers(error)),
            Err(error @ store::Error::Unrecorded { .. }) => return Err(AppError::Unrecorded(error)),
            _ => {}
        }
        let (is_stopping, end_streams) = (Arc::<AtomicBool>::default(), CancellationToken::new());
        let state = Arc::new(AppState {
            estimator: estimator.clone(),
            history: history.clone(),
            overlaps: overlaps.clone(),
            clock: clock.clone(),
            authenticator: Arc::clone(&authenticator),
            is_tls: tls.is_some(),
            public_url: settings.public_url.clone(),
            limits: settings.request_limits(),
            trace_ratio: settings.traces().map(|traces| traces.ratio),
            in_flight: Arc::new(Semaphore::new(settings.request_limits().requests)),
            metrics: Arc::clone(&metrics),
            is_stopping: Arc::clone(&is_stopping),
            end_streams: end_streams.clone(),
        });
        let is_local = public.is_local();
        let hosts = match &settings.allowed_hosts {
            Some(hosts) => hosts.clone(),
            // Protects against DNS rebinding: a site could make its own name resolve to this address.
            None if is_local && authenticator.is_open() => AllowedHosts::LOCAL,
            None => AllowedHosts::Any,
        };
        if authenticator.is_open() && settings.cors_origins == Some(Origins::Any) {
            tracing::warn!(
                "any site open in a browser can read, write and delete: cors_origins is *, and neither api_keys_file nor \
                 jwt_algorithm is set; name the origins or set one of these"
            );
        }
        if authenticator.is_open() && is_local && settings.allowed_hosts == Some(AllowedHosts::Any) {
            tracing::warn!(
                "any site open in a browser on this machine can read, write and delete, through a DNS name that resolves to this \
                 address: allowed_hosts is *, and neither api_keys_file nor jwt_algorithm is set; name the hosts or set one of these"
            );
        }
        let url = match &settings.public_url {
            Some(url) => url.to_string(),
            None => public.url(tls.is_some()),
        };
        let is_open = authenticator.is_open();
        let reloaded = keys.into_iter().chain(certificate).collect();
        let reloads = ReloadJob::new(authenticator, reloaded, settings.secret_files(), Arc::clone(&metrics));
        let routes = Routes::api(
            Arc::clone(&state),
            settings.cors_origins.as_ref(),
            hosts,
            if admin.is_some() { ProbesListener::Admin } else { ProbesListener::Api },
        );
        // The admin listener is in plain text.
        let admin_state = || Arc::new(AppState { is_tls: false, ..(*state).clone() });
        let admin = admin.map(|listener| (listener, Routes::admin(admin_state())));
        Ok(Self {
            public: (public, routes),
            admin,
            health: HealthMonitor::new(estimator.clone(), clock.clone(), settings.metered_segments.clone()),
            recorder: HistoryRecorder::new(estimator.clone(), clock.clone(), history),
            is_open,
            reloads,
            file_checks: FileChecks::default(),
            url,
            server: Server { limits: settings.connection_limits(), metrics, tls, is_stopping },
            shutdown_delay: settings.shutdown_delay,
            pruner: Pruner::new(estimator, clock, settings.prune_schedule.clone()),
            redis,
            overlaps,
            end_streams,
        })
    }

    /// Returns the address of the service, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.public.0.local_addr
    }

    /// Returns the address of probes and metrics, if they have their own listener.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(listener, _)| listener.local_addr)
    }

    /// Returns the handle that reloads files while the service runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloads.reloader()
    }

    /// Checks the files of keys and certificates at other intervals.
    #[must_use]
    pub fn with_file_checks(self, file_checks: FileChecks) -> Self {
        Self { file_checks, ..self }
    }
}
