//! Waiting for a condition.

use std::panic::Location;
use std::time::{Duration, Instant};

/// The time after which a test fails instead of waiting longer.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until `condition` holds. Panics with the caller's location after [`TIMEOUT`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let (caller, start) = (Location::caller(), Instant::now());
    async move {
        while !condition().await {
            assert!(start.elapsed() < TIMEOUT, "{caller}: not within {TIMEOUT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
