//! Reading the history in steps of time.

use std::time::Duration;

use super::interval::Interval;
use crate::domain::{SegmentName, Timestamp};
use crate::store::{self, Sample, Store};

/// The sizes of segments over time. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) store: Store,
    pub(super) interval: Option<Interval>,
}

/// A segment's size in one step of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When the step begins.
    pub at: Timestamp,
    /// The last count that was sampled in the step; `None` if there was none.
    pub count: Option<u64>,
}

impl History {
    /// The most points that are given at once.
    pub const MAX_POINTS: u64 = 2_000;
    /// How many points there are at the most when nobody says how long a step is.
    const DEFAULT_POINTS: u64 = 400;

    /// The history in `store`, to which a turn of every `interval` is added by whoever records; by nobody here if there is none.
    #[must_use]
    pub fn new(store: Store, interval: Option<Interval>) -> Self {
        Self { store, interval }
    }

    /// How often the counts are sampled; `None` if this service doesn't.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.interval.map(Interval::duration)
    }

    /// The sizes of `segment` from the step that `from` is in through the one that `to` is in. Steps begin at multiples of `step`
    /// since the Unix epoch.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer, or the history's key holds something else.
    pub async fn of(
        &self,
        segment: &SegmentName<'_>,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Point>, store::Error> {
        let segment = segment.clone().into_owned();
        let mut histories = self.of_each(std::slice::from_ref(&segment), from, to, step).await?;
        histories.pop().expect("there is one for each segment")
    }

    /// As [`Self::of`], of several segments, in few round trips. A key that holds something else is the failure of its own segment.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] when Redis didn't answer.
    pub async fn of_each(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Result<Vec<Point>, store::Error>>, store::Error> {
        let Steps { first, last, step } = Steps::of(from, to, step);
        let until = Timestamp::from_millis(last.saturating_add(step - 1));
        // How many samples are to be expected, so that no round trip is long. More come in further ones.
        let expected = self.interval.map_or(step, Interval::millis);
        let expected = usize::try_from((until.as_millis() - first) / expected).unwrap_or(usize::MAX);
        let samples = self.store.samples(segments, Timestamp::from_millis(first), until, expected).await?;
        let points = |samples: Vec<Sample>| Steps { first, last, step }.points(&samples);
        Ok(samples.into_iter().map(|samples| samples.map(points)).collect())
    }

    /// The step that is good for looking at what is between `from` and `to`, when nobody says how many points there may be.
    #[must_use]
    pub fn default_step(&self, from: Timestamp, to: Timestamp) -> Duration {
        self.step_for(from, to, Self::DEFAULT_POINTS)
    }

    /// A round step, a multiple of the interval, for about `points` points, or fewer, between `from` and `to`.
    #[must_use]
    pub fn step_for(&self, from: Timestamp, to: Timestamp, points: u64) -> Duration {
        const MINUTES: [u64; 17] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 480, 720, 1_440, 2_880, 4_320, 10_080];
        let span = u64::try_from(to.as_millis() - from.as_millis()).unwrap_or_default();
        let least = Duration::from_millis(span / points);
        let interval = self.interval.unwrap_or(Interval::DEFAULT).duration();
        let is_multiple = |step: Duration| step.as_secs().is_multiple_of(interval.as_secs());
        let round = MINUTES.map(|minutes| Duration::from_secs(60 * minutes));
        let round = [interval].into_iter().chain(round).find(|step| *step >= least && is_multiple(*step));
        round.unwrap_or_else(|| interval * u32::try_from(least.as_secs() / interval.as_secs() + 1).unwrap_or(u32::MAX))
    }

    /// How many steps there are between two points in time.
    #[must_use]
    pub fn steps(from: Timestamp, to: Timestamp, step: Duration) -> u64 {
        let Steps { first, last, step } = Steps::of(from, to, step);
        u64::try_from((last - first) / step + 1).unwrap_or_default()
    }
}

/// Steps of time, in milliseconds: when the first and the last begin, and how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    first: i64,
    last: i64,
    step: i64,
}

impl Steps {
    fn of(from: Timestamp, to: Timestamp, step: Duration) -> Self {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let begin = |time: Timestamp| time.as_millis() - time.as_millis().rem_euclid(step);
        Self { first: begin(from), last: begin(to), step }
    }

    /// A point for each step, of `samples` in the order of time.
    fn points(self, samples: &[Sample]) -> Vec<Point> {
        let Self { first, last, step } = self;
        let begins = std::iter::successors(Some(first), |begin| begin.checked_add(step));
        let mut samples = samples.iter().peekable();
        let points = begins.take_while(|begin| *begin <= last).map(|begin| {
            let mut count = None;
            while let Some(sample) = samples.next_if(|sample| sample.at.as_millis() < begin.saturating_add(step)) {
                count = (sample.at.as_millis() >= begin).then_some(sample.count);
            }
            Point { at: Timestamp::from_millis(begin), count }
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::redis::{Connection, Limits, RedisUrl};

    const HOUR: i64 = 3_600_000;

    fn history(interval: &str) -> History {
        let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), waiting: 1 };
        let connection = Connection::new(RedisUrl::parse("redis://localhost").unwrap(), limits, Arc::default());
        History::new(Store::new(connection.unwrap()), Interval::parse(interval).unwrap())
    }

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn each_step_has_a_point_and_a_gap_is_none() {
        let samples = [(0, 5), (HOUR, 6), (4 * HOUR, 0), (5 * HOUR, 9)];
        let samples = samples.map(|(at, count)| Sample { at: time(at), count });
        let counts = |from, to, hours: u64| {
            let steps = Steps::of(time(from), time(to), Duration::from_secs(3_600 * hours));
            steps
                .points(&samples)
                .into_iter()
                .map(|point| (point.at.as_millis() / HOUR, point.count))
                .collect::<Vec<_>>()
        };
        let hourly = [(0, Some(5)), (1, Some(6)), (2, None), (3, None), (4, Some(0)), (5, Some(9)), (6, None)];
        assert_eq!(counts(1, 6 * HOUR, 1), hourly);
        assert_eq!(counts(HOUR, 6 * HOUR - 1, 2), [(0, Some(6)), (2, None), (4, Some(9))], "the last of each step");
        assert_eq!(counts(HOUR, HOUR, 1), [(1, Some(6))]);
        assert_eq!(counts(2 * HOUR, 3 * HOUR, 1), [(2, None), (3, None)], "what was before is of no step");
        assert_eq!(counts(-1, 0, 1), [(-1, None), (0, Some(5))]);
        assert_eq!(History::steps(time(1), time(6 * HOUR), Duration::from_secs(3_600)), 7);
    }

    #[rstest]
    #[case("1h", 14 * 24, 60)]
    #[case("1h", 30 * 24, 120)]
    #[case("1h", 396 * 24, 1_440)]
    #[case("1h", 0, 60)]
    #[case("1m", 24, 5)]
    #[case("off", 14 * 24, 60)]
    #[case("90s", 1, 1)]
    fn the_usual_step_is_a_round_multiple_of_the_interval(
        #[case] interval: &str,
        #[case] hours: i64,
        #[case] minutes: u64,
    ) {
        let step = history(interval).default_step(time(0), time(hours * HOUR));
        if interval == "90s" {
            assert_eq!(step, Duration::from_secs(90));
        } else {
            assert_eq!(step, Duration::from_secs(60 * minutes));
        }
        assert!(History::steps(time(0), time(hours * HOUR), step) <= 401);
    }

    #[test]
    fn a_long_time_has_longer_steps() {
        let (from, to) = (time(0), time(100 * 365 * 24 * HOUR));
        let step = history("1h").default_step(from, to);
        assert!(step.as_secs().is_multiple_of(3_600) && History::steps(from, to, step) <= 401, "{step:?}");
    }
}
