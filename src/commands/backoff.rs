//! How long a command goes on when the other side fails: with pauses that grow, and not for ever.

use std::time::{Duration, Instant};

/// What is left of it, for one piece of work.
#[derive(Debug, Default)]
pub struct Patience {
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// How long the other side may fail in a row.
    pub const LIMIT: Duration = Duration::from_secs(60);
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const MAX_PAUSE: Duration = Duration::from_secs(5);

    /// How long to wait after another failure, at `now`, before the next attempt: as long as `asked` at least. None when it has
    /// failed for too long.
    pub fn pause(&mut self, asked: Option<Duration>, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        let left = Self::LIMIT.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero())?;
        self.pause = (self.pause * 2).clamp(Self::FIRST_PAUSE, Self::MAX_PAUSE);
        Some(self.pause.max(asked.unwrap_or_default()).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_patience_is_over() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(pause) = patience.pause(None, now) {
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(now - start, Patience::LIMIT);
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(pauses.len() < 25);
    }

    #[test]
    fn a_longer_pause_can_be_asked_for() {
        let seconds = Duration::from_secs;
        let now = Instant::now();
        assert_eq!(Patience::default().pause(Some(seconds(3)), now), Some(seconds(3)));
        assert_eq!(Patience::default().pause(Some(seconds(1_000)), now), Some(Patience::LIMIT));
    }
}
