//! The time by which an exchange with Redis must be over.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Error;

/// A point in time that is passed down to whatever waits, so that the one who waits for a connection can discard it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The timeout that it was made from, for the error.
    timeout: Duration,
}

impl Deadline {
    /// The deadline `timeout` from now.
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
