//! The service in this process.

use std::net::SocketAddr;
use std::ops::Deref;

use segment_estimator::commands::serve::{App, AppError};
use segment_estimator::config::{Layer, Settings, Source};
use segment_estimator::estimator::clock::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::in_time;
use super::redis::Redis;

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
        Self::spawn_with(redis, Layer::default()).await
    }

    /// A service on `redis` with some settings changed.
    pub async fn spawn_with(redis: &Redis, changes: Layer) -> Self {
        Self::spawn_on(redis.url(), changes).await
    }

    /// As `spawn_with`, on a machine whose clock is ahead by `millis`.
    pub async fn spawn_ahead_by(millis: i64, redis: &Redis, changes: Layer) -> Self {
        Self::spawn_with_clock(Clock::ahead_by(millis), redis.url(), changes).await
    }

    /// A service on the Redis that is, or will be, at `url`.
    pub async fn spawn_on(url: String, changes: Layer) -> Self {
        Self::spawn_with_clock(Clock::system(), url, changes).await
    }

    async fn spawn_with_clock(clock: Clock, url: String, changes: Layer) -> Self {
        let test = Layer {
            listen: Some("127.0.0.1:0".to_owned()),
            redis_url: Some(url),
            // Whether the time of a turn has come must change no test.
            history_interval: Some("off".to_owned()),
            ..Layer::default()
        };
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
