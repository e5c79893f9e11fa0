//! The service in this process.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use segment_estimator::commands::serve::{App, AppError, FileChecks};
use segment_estimator::config::{RawSettings, Settings, Source};
use segment_estimator::estimator::clock::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::redis::Redis;
use super::{eventually, in_time};

/// Returns settings by name.
pub fn settings<const N: usize>(settings: [(&str, &str); N]) -> RawSettings {
    settings_with(RawSettings::default(), settings)
}

/// Adds settings to `base`.
pub fn settings_with<const N: usize>(base: RawSettings, settings: [(&str, &str); N]) -> RawSettings {
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    envy::from_iter(base.texts().map(owned).chain(settings.map(owned))).unwrap()
}

/// The service in this process on a free port, and a client of it.
pub struct TestApp {
    client: Client,
    /// Address of probes and metrics if they have a listener of their own.
    pub admin_address: Option<SocketAddr>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl TestApp {
    /// Starts the service on `redis` with the default settings.
    pub async fn spawn(redis: &Redis) -> Self {
        Self::spawn_with(redis, settings([])).await
    }

    /// Starts the service on `redis` with `changes` to the default settings.
    pub async fn spawn_with(redis: &Redis, changes: RawSettings) -> Self {
        Self::spawn_on(redis.url(), changes).await
    }

    /// Starts the service on a machine whose clock is `millis` ahead.
    pub async fn spawn_ahead_by(millis: i64, redis: &Redis, changes: RawSettings) -> Self {
        Self::spawn_with_clock(Clock::ahead_by(millis), redis.url(), changes).await
    }

    /// Starts the service on the Redis at `url`, which may start later.
    pub async fn spawn_on(url: String, changes: RawSettings) -> Self {
        Self::spawn_with_clock(Clock::system(), url, changes).await
    }

    /// Starts the service as [`Self::spawn_with`] does. It checks its files of keys and certificates all the time.
    pub async fn spawn_with_file_checks(redis: &Redis, changes: RawSettings) -> Self {
        let app = Self::build(Clock::system(), redis.url(), changes).await;
        let pause = Duration::from_millis(10);
        Self::run(app.with_file_checks(FileChecks { interval: pause, settle: pause }))
    }

    async fn spawn_with_clock(clock: Clock, url: String, changes: RawSettings) -> Self {
        Self::run(Self::build(clock, url, changes).await)
    }

    async fn build(clock: Clock, url: String, changes: RawSettings) -> App {
        // A tick of the history recorder would change what Redis has at an arbitrary time.
        let test = settings([("listen", "127.0.0.1:0"), ("redis_url", &url), ("history_interval", "off")]);
        let layers = [(Source::Environment, test), (Source::Flags, changes)];
        App::build_with_clock(&Settings::from_layers(&layers).unwrap(), clock).await.unwrap()
    }

    fn run(app: App) -> Self {
        let stop = CancellationToken::new();
        Self {
            client: Client::new(app.local_addr()),
            admin_address: app.admin_addr(),
            stop: stop.clone(),
            running: tokio::spawn(async move { app.run_until(stop.cancelled()).await }),
        }
    }

    /// Waits until the service has `count` requests in flight. Panics with the caller's location after a time.
    #[track_caller]
    pub fn eventually_in_flight(&self, count: usize) -> impl Future<Output = ()> {
        let line = format!("\nestimator_http_requests_in_flight {count}\n");
        eventually("the requests are in flight", async move || {
            self.get("/metrics").await.text().await.unwrap().contains(&line)
        })
    }

    /// Starts the shutdown, as a signal would.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the service has ended.
    pub async fn ended(self) -> Result<(), AppError> {
        in_time("the service ends", self.running).await.unwrap()
    }
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
