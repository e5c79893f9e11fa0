//! The service in this process.

use std::net::SocketAddr;
use std::ops::Deref;

use segment_estimator::commands::serve::{App, AppError};
use segment_estimator::config::{RawSettings, Settings, Source};
use segment_estimator::estimator::clock::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::in_time;
use super::redis::Redis;

/// Returns settings by name.
pub fn settings<const N: usize>(settings: [(&str, &str); N]) -> RawSettings {
    settings_with(RawSettings::default(), settings)
}

/// Adds settings to `base`.
pub fn settings_with<const N: usize>(base: RawSettings, settings: [(&str, &str); N]) -> RawSettings {
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    envy::from_iter(base.texts().map(owned).chain(settings.map(owned))).unwrap()
}

/// The service in this process, on a port of its own, and a client of it.
pub struct TestApp {
    client: Client,
    /// Where probes and metrics are, if elsewhere.
    pub admin_addr: Option<SocketAddr>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl TestApp {
    /// A service on `redis` with the default settings.
    pub async fn spawn(redis: &Redis) -> Self {
        Self::spawn_with(redis, settings([])).await
    }

    /// A service on `redis` with some settings changed.
    pub async fn spawn_with(redis: &Redis, changes: RawSettings) -> Self {
        Self::spawn_on(redis.url(), changes).await
    }

    /// As `spawn_with`, on a machine whose clock is ahead by `millis`.
    pub async fn spawn_ahead_by(millis: i64, redis: &Redis, changes: RawSettings) -> Self {
        Self::spawn_with_clock(Clock::ahead_by(millis), redis.url(), changes).await
    }

    /// A service on the Redis that is, or will be, at `url`.
    pub async fn spawn_on(url: String, changes: RawSettings) -> Self {
        Self::spawn_with_clock(Clock::system(), url, changes).await
    }

    async fn spawn_with_clock(clock: Clock, url: String, changes: RawSettings) -> Self {
        // The time of day must change no test, so no sample is taken unless a test asks for it.
        let test = settings([("listen", "127.0.0.1:0"), ("redis_url", &url), ("history_interval", "off")]);
        let layers = [(Source::Environment, test), (Source::Flags, changes)];
        let app = App::build_with_clock(&Settings::from_layers(&layers).unwrap(), clock).await.unwrap();
        let stop = CancellationToken::new();
        Self {
            client: Client::new(app.local_addr()),
            admin_addr: app.admin_addr(),
            stop: stop.clone(),
            running: tokio::spawn(async move { app.run_until(stop.cancelled()).await }),
        }
    }

    /// Asks the service to stop, as a signal would.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the service's end.
    pub async fn ended(self) -> Result<(), AppError> {
        in_time("the service's end", self.running).await.unwrap()
    }
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
