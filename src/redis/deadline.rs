//! Deadlines of exchanges with Redis.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Error;

/// The end of an exchange. Callers pass it down, so that the connection that exceeds it can be discarded where it is
/// used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The original timeout, for the error.
    timeout: Duration,
}

impl Deadline {
    /// Returns the deadline that is `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// Awaits `future` until the deadline.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] at the deadline.
    pub(crate) async fn bound<T>(self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout_at(self.at, future).await.unwrap_or(Err(Error::Timeout(self.timeout)))
    }

    /// Sleeps for `pause`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] at the deadline.
    pub(crate) async fn sleep(self, pause: Duration) -> Result<(), Error> {
        self.bound(async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
        .await
    }
}
