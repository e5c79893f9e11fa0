//! Exponential backoff that gives up after a minute of failures.

use std::time::{Duration, Instant};

/// The backoff of one operation.
#[derive(Debug, Default)]
pub struct Backoff {
    failing_since: Option<Instant>,
    delay: Duration,
}

impl Backoff {
    /// How long an operation is retried.
    pub const MAX_ELAPSED: Duration = Duration::from_secs(60);
    const MIN_DELAY: Duration = Duration::from_millis(100);
    const MAX_DELAY: Duration = Duration::from_secs(5);

    /// Returns the delay between a failure at `now` and the next attempt, which is at least `retry_after`. Returns
    /// `None` after [`Self::MAX_ELAPSED`].
    pub fn next_delay(&mut self, retry_after: Option<Duration>, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        let left = Self::MAX_ELAPSED.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero())?;
        self.delay = (self.delay * 2).clamp(Self::MIN_DELAY, Self::MAX_DELAY);
        Some(self.delay.max(retry_after.unwrap_or_default()).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_delay_grows_and_ends_after_the_limit() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        let (mut now, mut delays) = (start, Vec::new());
        while let Some(delay) = backoff.next_delay(None, now) {
            delays.push(delay);
            now += delay;
        }
        assert_eq!(now - start, Backoff::MAX_ELAPSED);
        assert_eq!(delays[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(delays.len() < 25);
    }

    #[test]
    fn next_delay_is_at_least_retry_after() {
        let seconds = Duration::from_secs;
        let now = Instant::now();
        assert_eq!(Backoff::default().next_delay(Some(seconds(3)), now), Some(seconds(3)));
        assert_eq!(Backoff::default().next_delay(Some(seconds(1_000)), now), Some(Backoff::MAX_ELAPSED));
    }
}
