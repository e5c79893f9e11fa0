//! Waiting for what happens soon.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. It is reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `happened`, or panics with `what` did not.
pub async fn eventually(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !happened().await {
        assert!(start.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
