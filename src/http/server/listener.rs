//! Accepts connections, up to a maximum number.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::Metrics;

/// TCP listener with a limit on open connections.
pub struct Listener {
    tcp: TcpListener,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Whether the last connection waited for a permit. Limits the log to one line.
    is_full: bool,
    /// Whether the last accept failed. Limits the log to one line.
    is_failing: bool,
}

impl Listener {
    pub fn new(tcp: TcpListener, max_connections: usize, metrics: Arc<Metrics>) -> Self {
        let permits = Arc::new(Semaphore::new(max_connections));
        Self { tcp, permits, metrics, is_full: false, is_failing: false }
    }

    /// Accepts the next connection once a permit is available. Retries on errors: they concern a connection that is
    /// gone, or a process without free file descriptors, which connections release when they close. Cancel safe.
    pub async fn accept(&mut self) -> (TcpStream, OpenConnection) {
        /// Without free file descriptors, accepting fails immediately.
        const RETRY_DELAY: Duration = Duration::from_millis(100);
        let permit = self.acquire_permit().await;
        loop {
            match self.tcp.accept().await {
                Ok((stream, _)) => {
                    if std::mem::replace(&mut self.is_failing, false) {
                        tracing::info!("accepting connections again");
                    }
                    // Responses are small and must not wait for the acknowledgement of the previous one.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "failed to set TCP_NODELAY");
                    }
                    return (stream, OpenConnection::new(Arc::clone(&self.metrics), permit));
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(%error, "failed to accept connections");
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    async fn acquire_permit(&mut self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            self.is_full = false;
            return permit;
        }
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!("max_connections are open; new connections wait");
        }
        Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Permit and gauge of an open connection.
pub struct OpenConnection {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(metrics: Arc<Metrics>, permit: OwnedSemaphorePermit) -> Self {
        metrics.http.connected();
        Self { metrics, _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.http.disconnected();
    }
}
