//! The data set of a command: in the Redis of the settings, or in the private one, which a service may be using.

use std::future::pending;
use std::sync::Arc;

use super::Failure;
use crate::config::Settings;
use crate::embedded_redis::EmbeddedRedis;
use crate::redis::Deployment;
use crate::store::Store;

/// A data set, and the private Redis if it was started for the command.
pub(super) struct Data {
    pub(super) store: Store,
    /// The address of Redis, without a password.
    pub(super) address: String,
    redis: Option<EmbeddedRedis>,
}

impl Data {
    /// Opens the data set of `settings`. Connects with the first request.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Failure> {
        let (deployment, redis): (Deployment, _) = match settings.deployment() {
            Some(deployment) => (deployment, None),
            None => {
                let (url, redis) = EmbeddedRedis::start_or_join(&settings.data_dir, settings.redis_max_memory).await?;
                (url.into(), redis)
            }
        };
        let address = deployment.to_string();
        let store = settings.open_store(deployment, Arc::default())?;
        Ok(Self { store, address, redis })
    }

    /// As [`Self::open`], but never creates `data_dir`, for a command that only reads.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and if `data_dir` has no data.
    pub(super) async fn open_existing(settings: &Settings) -> Result<Self, Failure> {
        let data_dir = &settings.data_dir;
        if settings.deployment().is_none() && matches!(EmbeddedRedis::dir_in(data_dir).try_exists(), Ok(false)) {
            let data_dir = data_dir.display();
            return Err(
                format!("data_dir: {data_dir} has no data; give the data_dir or redis_url of the service").into()
            );
        }
        Self::open(settings).await
    }

    /// Whether another process, usually the service, had started the private Redis.
    pub(super) fn has_joined(&self, settings: &Settings) -> bool {
        settings.has_private_redis() && self.redis.is_none()
    }

    /// Supervises a private Redis that was started for the command. Returns if it can't be kept running.
    pub(super) async fn supervise(&mut self) -> Failure {
        match &mut self.redis {
            Some(redis) => redis.supervise().await.into(),
            None => pending().await,
        }
    }

    /// Stops the private Redis if it was started for the command.
    pub(super) async fn close(self) {
        if let Some(redis) = self.redis {
            redis.stop().await;
        }
    }
}
