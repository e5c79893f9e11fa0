//! The clock that the service goes by: this machine's, as long as it agrees with Redis's, and Redis's otherwise. So all services
//! on one Redis agree, whatever the clocks of their machines say.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::domain::Timestamp;
use crate::store::{self, Store};

/// A clock that is compared with Redis's now and then. Cheap to clone; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How wrong this machine's clock is made to be, in milliseconds.
    ahead_by: AtomicI64,
    /// When this clock was made. What goes by Redis's clock counts on from here, so that nobody who sets this machine's clock
    /// meanwhile sets this one.
    birth: Instant,
    /// Redis's time at the birth, in milliseconds, while the service goes by it; otherwise [`OWN`].
    redis_at_birth: AtomicI64,
    was_compared: AtomicBool,
}

/// In the place of Redis's time: the service goes by this machine's clock.
const OWN: i64 = i64::MIN;

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

/// A look at this machine's clocks, in milliseconds: the one that can be set, and the one that only counts.
#[derive(Debug, Clone, Copy)]
struct Reading {
    own: i64,
    since_birth: i64,
}

impl Reading {
    /// What the clock that can be set says of the birth.
    fn birth(self) -> i64 {
        self.own.saturating_sub(self.since_birth)
    }
}

impl Clock {
    /// This machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::ahead_by(0)
    }

    /// A clock as on a machine whose own is ahead by `millis` milliseconds, or behind if that is below zero.
    #[must_use]
    pub fn ahead_by(millis: i64) -> Self {
        Self(Arc::new(Shared {
            ahead_by: AtomicI64::new(millis),
            birth: Instant::now(),
            redis_at_birth: AtomicI64::new(OWN),
            was_compared: AtomicBool::new(false),
        }))
    }

    /// The time now: this machine's, or Redis's if the two were found to disagree.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.0.redis_at_birth.load(Ordering::Relaxed) {
            OWN => Timestamp::from_millis(self.own()),
            redis_at_birth => Timestamp::from_millis(redis_at_birth.saturating_add(self.since_birth())),
        }
    }

    /// This machine's time, for what a library schedules by it. All else goes by [`Self::now`].
    #[must_use]
    pub fn of_this_machine() -> Timestamp {
        Timestamp::now()
    }

    /// Whether it was ever compared with Redis's. Before that, nobody knows how wrong it is.
    #[must_use]
    pub fn was_compared(&self) -> bool {
        self.0.was_compared.load(Ordering::Relaxed)
    }

    /// Compares it with the clock of the Redis behind `store`, and has the skew measured. From now on [`Self::now`] goes by what
    /// was found.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis can't serve. What was found before holds on then.
    pub async fn compare_with(&self, store: &Store) -> Result<Comparison, store::Error> {
        let before = self.read();
        let answer = store.time().await;
        let after = self.read();
        let skew = match answer {
            Ok(Some(redis)) => Some(self.observe(before, redis.as_millis(), after)),
            Ok(None) => {
                self.observe_nothing();
                None
            }
            Err(_) => None,
        };
        store.metrics().redis.set_clock_skew(skew.map(Skew::as_seconds));
        let own = Timestamp::from_millis(before.own);
        let redis = answer?;
        self.0.was_compared.store(true, Ordering::Relaxed);
        // A service may be behind Redis by the tolerance, and by as much as the answer took by which it knows the skew.
        let margin = Skew::TOLERANCE + store.limits().answer;
        Ok(Comparison { skew, settled: redis.map_or(own, |redis| redis.min(own)) - margin })
    }

    /// Takes in that Redis said it is `redis`, in Unix milliseconds, at some moment between two readings, and logs it when the
    /// clocks begin or cease to agree.
    fn observe(&self, before: Reading, redis: i64, after: Reading) -> Skew {
        let (was_followed, skew, is_followed) = self.follow(before, redis, after);
        match (was_followed, is_followed) {
            (false, true) => tracing::warn!(
                skew_seconds = skew.as_seconds(),
                "this machine's clock is {skew}; the service goes by Redis's meanwhile"
            ),
            (true, false) => tracing::info!("this machine's clock agrees with Redis's again"),
            _ => {}
        }
        skew
    }

    /// Goes by Redis's clock from now on if it has to. Says whether it did before, how far the clocks are apart, and whether it
    /// does now.
    ///
    /// When Redis looked at its clock nobody can tell. So what is known of its time at the birth is an interval as long as the
    /// answer took; NTP knows no more ([RFC 5905](https://www.rfc-editor.org/rfc/rfc5905#section-8): the offset, give or take
    /// half of the delay). Of that interval the value is taken that is nearest to what was gone by until now, so that a slow answer
    /// never makes a skew out of nothing, nor moves a clock that may well be right.
    fn follow(&self, before: Reading, redis: i64, after: Reading) -> (bool, Skew, bool) {
        let followed = self.0.redis_at_birth.load(Ordering::Relaxed);
        let was_followed = followed != OWN;
        let (least, most) = (redis.saturating_sub(after.since_birth), redis.saturating_sub(before.since_birth));
        let until_now = if was_followed { followed } else { before.birth() };
        let redis_at_birth = until_now.clamp(least, most);
        let skew = Skew(before.birth().saturating_sub(redis_at_birth));
        let is_followed = skew.is_worth_following(was_followed);
        self.0.redis_at_birth.store(if is_followed { redis_at_birth } else { OWN }, Ordering::Relaxed);
        (was_followed, skew, is_followed)
    }

    /// Takes in that Redis serves and doesn't tell its time, and logs it when that is news.
    fn observe_nothing(&self) {
        if self.0.redis_at_birth.swap(OWN, Ordering::Relaxed) != OWN {
            tracing::warn!("Redis doesn't tell its time any more; the service goes by this machine's clock");
        } else if !self.was_compared() {
            tracing::info!(
                "Redis doesn't tell its time, as its ACL may have it; the service goes by this machine's clock"
            );
        }
    }

    fn read(&self) -> Reading {
        Reading { own: self.own(), since_birth: self.since_birth() }
    }

    /// This machine's time, in Unix milliseconds.
    fn own(&self) -> i64 {
        Timestamp::now().as_millis().saturating_add(self.0.ahead_by.load(Ordering::Relaxed))
    }

    /// Milliseconds since the birth.
    fn since_birth(&self) -> i64 {
        i64::try_from(self.0.birth.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Skew {
    /// How far the clocks may be apart before the service goes by Redis's. Clocks that are kept by NTP stay far below.
    pub const TOLERANCE: Duration = Duration::from_secs(1);
    const TOLERANCE_MILLIS: i64 = Self::TOLERANCE.as_millis() as i64;

    /// In seconds.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Whether it is within the tolerance.
    #[must_use]
    pub fn is_tolerable(self) -> bool {
        self.0.saturating_abs() <= Self::TOLERANCE_MILLIS
    }

    /// Whether the service has to go by Redis's clock. If it does already, it goes on to until the clocks clearly agree: a skew
    /// about the tolerance must not have it change its mind at each comparison.
    fn is_worth_following(self, is_followed: bool) -> bool {
        !self.is_tolerable() || (is_followed && self.0.saturating_abs() > Self::TOLERANCE_MILLIS / 2)
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
    const NOON: i64 = 1_795_348_800_000;

    /// What a clock that is ahead by `skew` finds when the question takes `there` and the answer `back`, in milliseconds. Redis
    /// looks at its clock at `redis`, which is a second after the birth.
    fn found_by(clock: &Clock, skew: i64, there: i64, redis: i64, back: i64) -> Skew {
        let at = |moment: i64| Reading { own: moment + skew, since_birth: moment - (NOON - 1_000) };
        clock.follow(at(redis - there), redis, at(redis + back)).1
    }

    fn found(skew: i64, there: i64, back: i64) -> i64 {
        found_by(&Clock::system(), skew, there, NOON, back).0
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
    fn a_slow_answer_does_not_move_a_clock_that_goes_by_redis() {
        let clock = Clock::ahead_by(1_400);
        assert_eq!(found_by(&clock, 1_400, 1, NOON, 1), Skew(1_399));
        let followed = clock.0.redis_at_birth.load(Ordering::Relaxed);
        for (there, back) in [(1_000, 1), (1, 1_000), (2_000, 2_000)] {
            assert_eq!(found_by(&clock, 1_400, there, NOON + 5_000, back), Skew(1_399));
            assert_eq!(clock.0.redis_at_birth.load(Ordering::Relaxed), followed);
        }
    }

    #[test]
    fn whoever_sets_this_machine_s_clock_does_not_set_one_that_goes_by_redis() {
        let clock = Clock::ahead_by(HOUR);
        let truth = Timestamp::now().as_millis();
        let ahead = clock.read();
        clock.follow(ahead, truth, ahead);
        for ahead_by in [0, -HOUR, 2 * HOUR] {
            clock.0.ahead_by.store(ahead_by, Ordering::Relaxed);
            let off = clock.now().as_millis() - Timestamp::now().as_millis();
            assert!(off.abs() < 1_000, "off by {off} ms");
        }
        // Once it is right, it is gone by again.
        clock.0.ahead_by.store(0, Ordering::Relaxed);
        let right = clock.read();
        assert_eq!(clock.follow(right, right.own, right), (true, Skew(0), false));
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
                let reading = clock.read();
                clock.follow(reading, Timestamp::now().as_millis(), reading);
                let (now, after) = (clock.now(), Timestamp::now());
                // The readings and Redis's are no single moment here.
                let margin = Skew::TOLERANCE + Duration::from_millis(100);
                prop_assert!(before - margin <= now && now <= after + margin, "{} {}", skew, now);
            }
        }
    }

    #[test]
    fn a_clock_within_the_tolerance_is_left_alone() {
        for skew in [-1_000, -1, 0, 1, 1_000] {
            let clock = Clock::ahead_by(skew);
            found_by(&clock, skew, 0, NOON, 0);
            assert_eq!(clock.0.redis_at_birth.load(Ordering::Relaxed), OWN, "{skew}");
        }
    }

    #[test]
    fn the_clocks_disagreeing_is_a_line_at_its_start_and_one_at_its_end() {
        let captured = Captured::default();
        let clock = Clock::system();
        let compare = |skew| {
            let reading = Reading { own: NOON + skew, since_birth: 1_000 };
            clock.observe(reading, NOON, reading);
        };
        tracing::subscriber::with_default(captured.subscriber(), || {
            // About the tolerance, it doesn't change its mind at each comparison.
            for skew in [0, 1_000, 3_600_000, 3_600_003, 1_001, 999, 1_001, 999, 500, 501, 999, 0, -1_249] {
                compare(skew);
            }
            clock.observe_nothing();
            clock.0.was_compared.store(true, Ordering::Relaxed);
            clock.observe_nothing();
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
