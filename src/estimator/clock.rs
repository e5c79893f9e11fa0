//! The service's clock: this machine's while it agrees with Redis's, otherwise Redis's. All instances on one Redis
//! therefore agree, whatever the clocks of their machines say.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::domain::Timestamp;
use crate::store::{self, Store};

/// A clock that is synchronized with Redis's at intervals. Cheap to clone; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<ClockState>);

#[derive(Debug)]
struct ClockState {
    /// An error that is added to this machine's clock, in milliseconds.
    ahead_by: AtomicI64,
    /// Redis's clock is extrapolated from here, so that setting this machine's clock doesn't affect it.
    started_at: Instant,
    /// Redis's time at the start, in milliseconds, while the service uses Redis's clock.
    redis_at_start: AtomicOption,
    is_synced: AtomicBool,
}

/// An optional number that is read and written atomically.
#[derive(Debug)]
struct AtomicOption(AtomicI64);

impl AtomicOption {
    const NONE: i64 = i64::MIN;

    const fn none() -> Self {
        Self(AtomicI64::new(Self::NONE))
    }

    fn load(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|number| *number != Self::NONE)
    }

    fn swap(&self, number: Option<i64>) -> Option<i64> {
        let before = self.0.swap(number.unwrap_or(Self::NONE), Ordering::Relaxed);
        Some(before).filter(|number| *number != Self::NONE)
    }
}

/// The result of a synchronization with Redis's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSync {
    /// How far the clocks are apart; `None` if Redis doesn't report its time.
    pub skew: Option<Skew>,
    /// Lower bound on every instance's clock: the earlier of this machine's and Redis's time, minus a margin. Members
    /// expired at this time are safe to prune.
    pub safe_now: Timestamp,
}

/// How far this machine's clock is ahead of Redis's, in milliseconds; negative if it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew(i64);

/// A reading of this machine's clocks, in milliseconds: the wall clock and the monotonic one.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: i64,
    since_start: i64,
}

impl Reading {
    /// Returns what the wall clock would have said at the start.
    fn start(self) -> i64 {
        self.wall.saturating_sub(self.since_start)
    }
}

impl Clock {
    /// Returns this machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::ahead_by(0)
    }

    /// Returns the clock of a machine that is `millis` milliseconds ahead of this one, or behind if `millis` is
    /// negative.
    #[must_use]
    pub fn ahead_by(millis: i64) -> Self {
        Self(Arc::new(ClockState {
            ahead_by: AtomicI64::new(millis),
            started_at: Instant::now(),
            redis_at_start: AtomicOption::none(),
            is_synced: AtomicBool::new(false),
        }))
    }

    /// Returns the current time: this machine's, or Redis's if the clocks were found to disagree.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = match self.0.redis_at_start.load() {
            None => self.wall(),
            Some(redis_at_start) => redis_at_start.saturating_add(self.since_start()),
        };
        Timestamp::from_millis(now)
    }

    /// Returns the current time, or `None` before the first synchronization. Until then the clock may be wrong by any
    /// amount, and a visit that is written with a wrong time stays wrong.
    #[must_use]
    pub fn ready_now(&self) -> Option<Timestamp> {
        self.is_synced().then(|| self.now())
    }

    /// Returns this machine's time, for a library that schedules by it. Everything else uses [`Self::now`].
    #[must_use]
    pub fn of_this_machine() -> Timestamp {
        Timestamp::now()
    }

    /// Returns whether the clock was ever synchronized with Redis's.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.0.is_synced.load(Ordering::Relaxed)
    }

    /// Synchronizes with the clock of the Redis behind `store`, and updates the gauge of the skew.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis can't serve. The clock then continues as before.
    pub async fn sync(&self, store: &Store) -> Result<ClockSync, store::Error> {
        let before = self.read();
        let answer = store.time().await;
        let after = self.read();
        let skew = match answer {
            Ok(Some(redis)) => Some(self.observe(before, redis.as_millis(), after)),
            Ok(None) => {
                self.observe_none();
                None
            }
            Err(_) => None,
        };
        store.metrics().redis.set_clock_skew(skew.map(Skew::as_seconds));
        let local = Timestamp::from_millis(before.wall);
        let redis = answer?;
        self.0.is_synced.store(true, Ordering::Relaxed);
        // An instance may be behind Redis by the tolerance, and by the time that the answer took by which it measured
        // the skew.
        let margin = Skew::TOLERANCE + store.limits().answer;
        Ok(ClockSync { skew, safe_now: redis.map_or(local, |redis| redis.min(local)) - margin })
    }

    /// Applies Redis's time `redis`, in Unix milliseconds, which was read at some moment between two readings. Logs
    /// when the clocks begin or cease to disagree.
    fn observe(&self, before: Reading, redis: i64, after: Reading) -> Skew {
        let Update { used_redis, skew, uses_redis } = self.update(before, redis, after);
        match (used_redis, uses_redis) {
            (false, true) => {
                tracing::warn!(skew_seconds = skew.as_seconds(), "this machine's clock is {skew}; using Redis's clock")
            }
            (true, false) => {
                tracing::info!("this machine's clock agrees with Redis's again; using this machine's clock")
            }
            _ => {}
        }
        skew
    }

    /// Decides which clock to use from now on.
    ///
    /// The moment at which Redis read its clock is unknown, so Redis's time at the start is known up to an interval as
    /// long as the answer took. NTP has the same bound ([RFC 5905](https://www.rfc-editor.org/rfc/rfc5905#section-8):
    /// the offset, plus or minus half of the delay). Of that interval the value closest to the clock used until now is
    /// taken. A slow answer therefore never creates a skew, nor moves a clock that may be right.
    fn update(&self, before: Reading, redis: i64, after: Reading) -> Update {
        let used = self.0.redis_at_start.load();
        let (earliest, latest) = (redis.saturating_sub(after.since_start), redis.saturating_sub(before.since_start));
        let redis_at_start = used.unwrap_or(before.start()).clamp(earliest, latest);
        let skew = Skew(before.start().saturating_sub(redis_at_start));
        let uses_redis = skew.exceeds_tolerance(used.is_some());
        self.0.redis_at_start.swap(uses_redis.then_some(redis_at_start));
        Update { used_redis: used.is_some(), skew, uses_redis }
    }

    /// Applies that Redis serves but doesn't report its time. Logs it the first time.
    fn observe_none(&self) {
        if self.0.redis_at_start.swap(None).is_some() {
            tracing::warn!("Redis no longer reports its time; using this machine's clock");
        } else if !self.is_synced() {
            tracing::info!("Redis doesn't report its time (its ACL may forbid it); using this machine's clock");
        }
    }

    fn read(&self) -> Reading {
        Reading { wall: self.wall(), since_start: self.since_start() }
    }

    /// This machine's time, in Unix milliseconds.
    fn wall(&self) -> i64 {
        Timestamp::now().as_millis().saturating_add(self.0.ahead_by.load(Ordering::Relaxed))
    }

    fn since_start(&self) -> i64 {
        i64::try_from(self.0.started_at.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// The skew, and whether Redis's clock was used before and is used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Update {
    used_redis: bool,
    skew: Skew,
    uses_redis: bool,
}

impl Skew {
    /// The largest skew at which the service uses this machine's clock. Clocks kept by NTP stay far below.
    pub const TOLERANCE: Duration = Duration::from_secs(1);
    const TOLERANCE_MILLIS: i64 = Self::TOLERANCE.as_millis() as i64;

    /// Returns the skew in seconds.
    #[must_use]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Returns whether the skew is within the tolerance.
    #[must_use]
    pub fn is_tolerable(self) -> bool {
        self.0.saturating_abs() <= Self::TOLERANCE_MILLIS
    }

    /// Returns whether the service has to use Redis's clock. If it does already, it switches back at half the
    /// tolerance, so that a skew close to the tolerance doesn't make it switch at every synchronization.
    fn exceeds_tolerance(self, uses_redis: bool) -> bool {
        !self.is_tolerable() || (uses_redis && self.0.saturating_abs() > Self::TOLERANCE_MILLIS / 2)
    }
}

/// Completes "this machine's clock is": `1h ahead of Redis's`, `1s 200ms behind Redis's`.
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

    /// Returns the skew that a clock ahead by `skew` measures when the request takes `there` and the reply `back`, in
    /// milliseconds. Redis reads its clock at `redis`, which is a second after the start.
    fn measure(clock: &Clock, skew: i64, there: i64, redis: i64, back: i64) -> Skew {
        let at = |moment: i64| Reading { wall: moment + skew, since_start: moment - (NOON - 1_000) };
        clock.update(at(redis - there), redis, at(redis + back)).skew
    }

    fn measure_once(skew: i64, there: i64, back: i64) -> i64 {
        measure(&Clock::system(), skew, there, NOON, back).0
    }

    #[rstest]
    #[case::quick_and_right(0, 1, 1, 0)]
    #[case::slow_and_right(0, 1_900, 100, 0)]
    #[case::ahead(HOUR, 3, 2, HOUR - 3)]
    #[case::behind(-HOUR, 3, 2, 2 - HOUR)]
    #[case::ahead_by_less_than_can_be_known(500, 800, 800, 0)]
    fn update_measures_only_the_skew_that_the_answer_proves(
        #[case] skew: i64,
        #[case] there: i64,
        #[case] back: i64,
        #[case] expected: i64,
    ) {
        assert_eq!(measure_once(skew, there, back), expected);
    }

    #[test]
    fn update_keeps_redis_s_clock_after_a_slow_answer() {
        let clock = Clock::ahead_by(1_400);
        assert_eq!(measure(&clock, 1_400, 1, NOON, 1), Skew(1_399));
        let used = clock.0.redis_at_start.load();
        for (there, back) in [(1_000, 1), (1, 1_000), (2_000, 2_000)] {
            assert_eq!(measure(&clock, 1_400, there, NOON + 5_000, back), Skew(1_399));
            assert_eq!(clock.0.redis_at_start.load(), used);
        }
    }

    #[test]
    fn now_ignores_that_this_machine_s_clock_is_set_while_it_uses_redis_s() {
        let clock = Clock::ahead_by(HOUR);
        let truth = Timestamp::now().as_millis();
        let ahead = clock.read();
        clock.update(ahead, truth, ahead);
        for ahead_by in [0, -HOUR, 2 * HOUR] {
            clock.0.ahead_by.store(ahead_by, Ordering::Relaxed);
            let off = clock.now().as_millis() - Timestamp::now().as_millis();
            assert!(off.abs() < 1_000, "off by {off} ms");
        }
        // When this machine's clock is right again, it is used again.
        clock.0.ahead_by.store(0, Ordering::Relaxed);
        let right = clock.read();
        let expected = Update { used_redis: true, skew: Skew(0), uses_redis: false };
        assert_eq!(clock.update(right, right.wall, right), expected);
    }

    proptest! {
        #[test]
        fn update_never_overstates_a_skew_and_errs_by_at_most_the_time_of_the_answer(
            skew in -YEAR..YEAR,
            there in 0..10_000_i64,
            back in 0..10_000_i64,
        ) {
            let measured = measure_once(skew, there, back);
            prop_assert!(measured.abs() <= skew.abs() && measured.signum() * skew.signum() >= 0, "{}", measured);
            prop_assert!((measured - skew).abs() <= there.max(back), "{}", measured);
        }

        #[test]
        fn now_agrees_within_the_tolerance_whatever_the_clocks_of_machines_say(skews in prop::collection::vec(-YEAR..YEAR, 1..20)) {
            for skew in skews {
                let clock = Clock::ahead_by(skew);
                let before = Timestamp::now();
                let reading = clock.read();
                clock.update(reading, Timestamp::now().as_millis(), reading);
                let (now, after) = (clock.now(), Timestamp::now());
                // Here the readings and Redis's time are of different moments.
                let margin = Skew::TOLERANCE + Duration::from_millis(100);
                prop_assert!(before - margin <= now && now <= after + margin, "{} {}", skew, now);
            }
        }
    }

    #[test]
    fn update_uses_this_machine_s_clock_within_the_tolerance() {
        for skew in [-1_000, -1, 0, 1, 1_000] {
            let clock = Clock::ahead_by(skew);
            measure(&clock, skew, 0, NOON, 0);
            assert_eq!(clock.0.redis_at_start.load(), None, "{skew}");
        }
    }

    #[test]
    fn observe_logs_once_when_the_clocks_begin_and_cease_to_disagree() {
        let captured = Captured::default();
        let clock = Clock::system();
        let observe = |skew| {
            let reading = Reading { wall: NOON + skew, since_start: 1_000 };
            clock.observe(reading, NOON, reading);
        };
        tracing::subscriber::with_default(captured.subscriber(), || {
            // A skew close to the tolerance doesn't make it switch each time.
            for skew in [0, 1_000, 3_600_000, 3_600_003, 1_001, 999, 1_001, 999, 500, 501, 999, 0, -1_249] {
                observe(skew);
            }
            clock.observe_none();
            clock.0.is_synced.store(true, Ordering::Relaxed);
            clock.observe_none();
        });
        let expected = [
            "this machine's clock is 1h ahead of Redis's; using Redis's clock skew_seconds=3600",
            "this machine's clock agrees with Redis's again; using this machine's clock",
            "this machine's clock is 1s 200ms behind Redis's; using Redis's clock skew_seconds=-1.249",
            "Redis no longer reports its time; using this machine's clock",
        ];
        let lines = captured.lines();
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{expected} is not in {line}");
        }
    }

    #[test]
    fn ready_now_is_none_before_the_first_synchronization() {
        let clock = Clock::system();
        assert_eq!(clock.ready_now(), None);
        clock.0.is_synced.store(true, Ordering::Relaxed);
        assert!(clock.ready_now().is_some());
    }
}
