//! The clock that the service goes by: this machine's, as long as it agrees with Redis's, and Redis's otherwise. So all services
//! on one Redis agree, whatever the clocks of their machines say.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::store::{self, Store};
use crate::time::Timestamp;

/// A clock that is compared with Redis's now and then. Cheap to clone; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How wrong this machine's clock is made to be, in milliseconds.
    ahead_by: i64,
    /// What is taken off this machine's time, in milliseconds: 0 while it agrees with Redis's, or Redis doesn't tell.
    correction: AtomicI64,
}

/// What a comparison with Redis's clock found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How far the clocks are apart; `None` when Redis doesn't tell its time.
    pub skew: Option<Skew>,
    /// A time that no service on this Redis is behind: the earlier of this machine's and Redis's, less a margin. Who has
    /// expired by it counts for nobody.
    pub settled: Timestamp,
}

/// How far this machine's clock is ahead of Redis's, in milliseconds; below zero when it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew(i64);

impl Clock {
    /// This machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::ahead_by(0)
    }

    /// A clock as on a machine whose own is ahead by `millis` milliseconds, or behind if that is below zero.
    #[must_use]
    pub fn ahead_by(millis: i64) -> Self {
        Self(Arc::new(Shared { ahead_by: millis, correction: AtomicI64::new(0) }))
    }

    /// The time now: this machine's, less what was found to be wrong with it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let correction = self.0.correction.load(Ordering::Relaxed);
        Timestamp::from_millis(self.own().as_millis().saturating_sub(correction))
    }

    /// Compares it with the clock of the Redis behind `store`, and has the skew measured. From now on [`Self::now`] goes by what
    /// was found.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer. What was found before holds on then.
    pub async fn compare_with(&self, store: &Store) -> Result<Comparison, store::Error> {
        let before = self.own();
        let answer = store.time().await;
        let after = self.own();
        let skew = match answer {
            Ok(Some(redis)) => Some(Skew::between(before, redis, after)),
            Ok(None) | Err(_) => None,
        };
        store.metrics().redis.set_clock_skew(skew.map(Skew::as_seconds));
        let redis = answer?;
        self.observe(skew);
        // A service may be behind Redis by the tolerance, and by as much as the answer took by which it knows the skew.
        let margin = Skew::TOLERANCE + store.limits().answer;
        Ok(Comparison { skew, settled: redis.map_or(before, |redis| redis.min(before)) - margin })
    }

    /// Takes in what a comparison found, and logs it when the clocks begin or cease to agree.
    fn observe(&self, skew: Option<Skew>) {
        match (self.correct(skew), skew) {
            ((false, true), Some(skew)) => {
                tracing::warn!(
                    skew_seconds = skew.as_seconds(),
                    "this machine's clock is {skew}; the service goes by Redis's meanwhile"
                );
            }
            ((true, false), Some(_)) => tracing::info!("this machine's clock agrees with Redis's again"),
            ((true, false), None) => {
                tracing::warn!("Redis doesn't tell its time any more; the service goes by this machine's clock");
            }
            _ => {}
        }
    }

    /// Goes by what a comparison found from now on. Says whether the clock was corrected before, and whether it is now.
    fn correct(&self, skew: Option<Skew>) -> (bool, bool) {
        let correction = |was_corrected| {
            let worthwhile = skew.filter(|skew| skew.is_worth_correcting(was_corrected));
            worthwhile.map_or(0, |skew| skew.0)
        };
        let change = |before| Some(correction(before != 0));
        let before = self.0.correction.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        let was_corrected = before.is_ok_and(|before| before != 0);
        (was_corrected, correction(was_corrected) != 0)
    }

    /// This machine's time.
    fn own(&self) -> Timestamp {
        Timestamp::from_millis(Timestamp::now().as_millis().saturating_add(self.0.ahead_by))
    }
}

impl Skew {
    /// How far the clocks may be apart before the service goes by Redis's. Clocks that are kept by NTP stay far below.
    pub const TOLERANCE: Duration = Duration::from_secs(1);
    const TOLERANCE_MILLIS: i64 = Self::TOLERANCE.as_millis() as i64;

    /// The skew by an answer of Redis that has its time, `redis`, and this machine's times `before` asking and `after` the
    /// answer.
    ///
    /// Redis looked at its clock at some moment between the two, which nobody can tell. So what is known is an interval as
    /// long as the answer took; NTP knows no more
    /// ([RFC 5905](https://www.rfc-editor.org/rfc/rfc5905#section-8): the offset, give or take half of the delay). Of that
    /// interval the value nearest to zero is taken, so that a slow answer never makes a skew out of nothing.
    fn between(before: Timestamp, redis: Timestamp, after: Timestamp) -> Self {
        let (least, most) = (before.as_millis() - redis.as_millis(), after.as_millis() - redis.as_millis());
        // The wrong way round when this machine's clock was set back meanwhile.
        Self(0.clamp(least.min(most), most.max(least)))
    }

    /// In seconds.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Whether it is within the tolerance.
    #[must_use]
    pub fn is_tolerable(self) -> bool {
        self.0.abs() <= Self::TOLERANCE_MILLIS
    }

    /// Whether the service has to go by Redis's clock. If it does already, it goes on to until the clocks clearly agree: a skew
    /// about the tolerance must not have it change its mind at each comparison.
    fn is_worth_correcting(self, is_corrected: bool) -> bool {
        !self.is_tolerable() || (is_corrected && self.0.abs() > Self::TOLERANCE_MILLIS / 2)
    }
}

/// To be read after "this machine's clock is": `1h ahead of Redis's`, `1s 200ms behind Redis's`.
impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = Duration::from_millis(self.0.unsigned_abs().saturating_add(50) / 100 * 100);
        let direction = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{} {direction} Redis's", humantime::format_duration(tenths))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::telemetry::tests::Captured;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn noon_plus(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOON.as_millis() + millis)
    }

    /// What is found of a clock that is ahead by `skew`, when the question takes `there` and the answer `back`, in milliseconds.
    fn found(skew: i64, there: i64, back: i64) -> i64 {
        Skew::between(noon_plus(skew - there), NOON, noon_plus(skew + back)).0
    }

    #[rstest]
    #[case::quick_and_right(0, 1, 1, 0)]
    #[case::slow_and_right(0, 1_900, 100, 0)]
    #[case::ahead(HOUR, 3, 2, HOUR - 3)]
    #[case::behind(-HOUR, 3, 2, 2 - HOUR)]
    #[case::ahead_by_less_than_can_be_known(500, 800, 800, 0)]
    fn a_skew_is_what_the_answer_proves_and_no_more(
        #[case] skew: i64,
        #[case] there: i64,
        #[case] back: i64,
        #[case] expected: i64,
    ) {
        assert_eq!(found(skew, there, back), expected);
    }

    #[test]
    fn a_clock_that_is_set_back_while_redis_is_asked_is_no_panic() {
        assert_eq!(Skew::between(noon_plus(HOUR), NOON, noon_plus(2)), Skew(2));
    }

    proptest! {
        #[test]
        fn what_is_found_is_never_more_than_the_truth_and_off_by_no_more_than_the_answer_took(
            skew in -YEAR..YEAR,
            there in 0..10_000_i64,
            back in 0..10_000_i64,
        ) {
            let found = found(skew, there, back);
            prop_assert!(found.abs() <= skew.abs() && found.signum() * skew.signum() >= 0, "{}", found);
            prop_assert!((found - skew).abs() <= there.max(back), "{}", found);
        }

        #[test]
        fn services_with_any_clocks_agree_within_the_tolerance(skews in prop::collection::vec(-YEAR..YEAR, 1..20)) {
            for skew in skews {
                let clock = Clock::ahead_by(skew);
                let before = Timestamp::now();
                clock.correct(Some(Skew(skew)));
                let (now, after) = (clock.now(), Timestamp::now());
                prop_assert!(before - Skew::TOLERANCE <= now && now <= after + Skew::TOLERANCE, "{} {}", skew, now);
            }
        }
    }

    #[test]
    fn a_clock_within_the_tolerance_is_left_alone() {
        for skew in [Skew(-1_000), Skew(-1), Skew(0), Skew(1_000)] {
            let clock = Clock::ahead_by(skew.0);
            clock.correct(Some(skew));
            assert_eq!(clock.0.correction.load(Ordering::Relaxed), 0, "{skew:?}");
        }
    }

    #[test]
    fn the_clocks_disagreeing_is_a_line_at_its_start_and_one_at_its_end() {
        let captured = Captured::default();
        let clock = Clock::system();
        tracing::subscriber::with_default(captured.subscriber(), || {
            // About the tolerance, it doesn't change its mind at each comparison.
            for skew in [0, 1_000, 3_600_000, 3_600_003, 1_001, 999, 1_001, 999, 500, 501, 999, 0] {
                clock.observe(Some(Skew(skew)));
            }
            for skew in [Some(Skew(-1_249)), None, None] {
                clock.observe(skew);
            }
        });
        let expected = [
            "this machine's clock is 1h ahead of Redis's; the service goes by Redis's meanwhile skew_seconds=3600",
            "this machine's clock agrees with Redis's again",
            "this machine's clock is 1s 200ms behind Redis's; the service goes by Redis's meanwhile skew_seconds=-1.249",
            "Redis doesn't tell its time any more; the service goes by this machine's clock",
        ];
        let lines = captured.lines();
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{expected} is not in {line}");
        }
    }
}
