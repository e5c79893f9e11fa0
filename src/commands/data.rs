//! The data set that a command works on: in the Redis that is set, or in the private one, whether a service uses it or not.

use std::future::pending;
use std::sync::Arc;

use super::Failure;
use crate::config::Settings;
use crate::embedded_redis::EmbeddedRedis;
use crate::redis::Deployment;
use crate::store::Store;

/// A data set, and the private Redis that was started for the command, if one was.
pub(super) struct Data {
    pub(super) store: Store,
    /// Where it is, without a password.
    pub(super) address: String,
    redis: Option<EmbeddedRedis>,
}

impl Data {
    /// Reaches the Redis of `settings`. Whether it answers is found out with the first question.
    ///
    /// # Errors
    ///
    /// The reason in one line.
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

    /// Sees that a private Redis that was started for this goes on, and returns when it doesn't.
    pub(super) async fn supervise(&mut self) -> Failure {
        match &mut self.redis {
            Some(redis) => redis.supervise().await.into(),
            None => pending().await,
        }
    }

    /// Stops the private Redis again if it was started for this.
    pub(super) async fn close(self) {
        if let Some(redis) = self.redis {
            redis.stop().await;
        }
    }
}
