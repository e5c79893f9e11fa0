//! The data set that a command works on: in the Redis that is set, or in the private one, whether a service uses it or not.

use std::sync::Arc;

use super::Failure;
use crate::settings::Settings;
use crate::store::embedded::{EmbeddedError, EmbeddedRedis};
use crate::store::{Connection, Servers, Store};

/// A data set, and the private Redis that was started for the command, if one was.
pub(super) struct Data {
    pub(super) store: Store,
    redis: Option<EmbeddedRedis>,
}

impl Data {
    /// Reaches the Redis of `settings`. Whether it answers is found out with the first question.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Failure> {
        let (servers, redis): (Servers, _) = match &settings.redis {
            Some(servers) => (servers.clone(), None),
            None => match EmbeddedRedis::start(&settings.data_dir).await {
                Ok(redis) => (redis.url().into(), Some(redis)),
                Err(EmbeddedError::InUse(data_dir)) => {
                    (EmbeddedRedis::of_running_service(&data_dir).await?.into(), None)
                }
                Err(error) => return Err(error.into()),
            },
        };
        let connection = Connection::new(servers, settings.store_limits(), Arc::default())?;
        Ok(Self { store: Store::new(connection).with_acks(settings.write_acks), redis })
    }

    /// Stops the private Redis again if it was started for this.
    pub(super) async fn close(self) {
        if let Some(redis) = self.redis {
            redis.stop().await;
        }
    }
}
