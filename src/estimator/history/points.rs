//! Reads histories in steps of time.

use std::time::Duration;

use super::interval::Interval;
use crate::domain::{Estimate, SegmentName, Timestamp};
use crate::store::{self, Sample, Store};

/// The histories of segments. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) store: Store,
    pub(super) interval: Option<Interval>,
}

/// The count of a segment in one step of time, which includes its start. A [`Bucket`](crate::estimator::Bucket)
/// excludes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The start of the step, inclusive.
    pub at: Timestamp,
    /// The end of the step, exclusive.
    pub to: Timestamp,
    /// The time of the last sample in the step, or `None` if there is none.
    pub sampled_at: Option<Timestamp>,
    /// The count of that sample.
    pub count: Option<Estimate>,
}

impl History {
    /// The most points of an answer.
    pub const MAX_POINTS: u64 = 2_000;
    /// The most points without an explicit step.
    const DEFAULT_POINTS: u64 = 400;

    /// Creates the histories in `store`, which have a sample every `interval`. `None` means that this instance doesn't
    /// sample.
    #[must_use]
    pub fn new(store: Store, interval: Option<Interval>) -> Self {
        Self { store, interval }
    }

    /// Returns how often counts are sampled; `None` if this instance doesn't.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.interval.map(Interval::duration)
    }

    /// Returns the tick of the next samples; `None` if this instance doesn't sample. It is the one of `now` until that
    /// is complete or its deadline is over, then the one after it.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn next_sample_at(&self, now: Timestamp) -> Result<Option<Timestamp>, store::Error> {
        let Some(interval) = self.interval else { return Ok(None) };
        let tick = interval.tick(now);
        let is_over = now >= interval.deadline(tick) || self.store.is_complete(tick, now).await?;
        Ok(Some(if is_over { tick + interval.duration() } else { tick }))
    }

    /// Returns the points of `segment` from the step of `from` through the step of `to`. Steps start at multiples of
    /// `step` since the Unix epoch; steps of weeks start on Mondays.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed, or the key is not a history.
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

    /// Returns the points as [`of`](Self::of), without the samples after `to`. Later samples of the last step don't
    /// change them.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed, or the key is not a history.
    pub async fn of_until(
        &self,
        segment: &SegmentName<'_>,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Point>, store::Error> {
        let segment = segment.clone().into_owned();
        let mut histories = self.read(std::slice::from_ref(&segment), Steps::of(from, to, step), to).await?;
        histories.pop().expect("there is one for each segment")
    }

    /// Returns the points of several segments in few round trips. A key that is not a history fails only its own
    /// segment.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn of_each(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Result<Vec<Point>, store::Error>>, store::Error> {
        let steps = Steps::of(from, to, step);
        let until = Timestamp::from_millis(steps.last.saturating_add(steps.step - 1));
        self.read(segments, steps, until).await
    }

    /// Returns the points of `steps`, of the samples through `until`.
    async fn read(
        &self,
        segments: &[SegmentName<'static>],
        steps: Steps,
        until: Timestamp,
    ) -> Result<Vec<Result<Vec<Point>, store::Error>>, store::Error> {
        // The expected number of samples keeps round trips short. More samples take further round trips.
        let expected = self.interval.map_or(steps.step, Interval::millis);
        let expected = usize::try_from((until.as_millis() - steps.first) / expected).unwrap_or(usize::MAX);
        let (first, step) = (Timestamp::from_millis(steps.first), Duration::from_millis(steps.step.unsigned_abs()));
        let samples = self.store.samples(segments, first, until, step, expected).await?;
        let points = |samples: Vec<Sample>| steps.points(&samples);
        Ok(samples.into_iter().map(|samples| samples.map(points)).collect())
    }

    /// Returns the step for the time between `from` and `to` with the default number of points.
    #[must_use]
    pub fn default_step(&self, from: Timestamp, to: Timestamp) -> Duration {
        self.step_for(from, to, Self::DEFAULT_POINTS)
    }

    /// Returns a round step, a multiple of the interval, that gives at most about `points` points between `from` and
    /// `to`.
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

    /// Returns the start of the step of `time`.
    #[must_use]
    pub fn step_start(time: Timestamp, step: Duration) -> Timestamp {
        Timestamp::from_millis(Steps::of(time, time, step).first)
    }

    /// Returns the number of steps between two points in time.
    #[must_use]
    pub fn steps(from: Timestamp, to: Timestamp, step: Duration) -> u64 {
        let Steps { first, last, step } = Steps::of(from, to, step);
        u64::try_from((last - first) / step + 1).unwrap_or_default()
    }
}

/// Steps of time, in milliseconds: the starts of the first and the last one, and the length of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    first: i64,
    last: i64,
    step: i64,
}

impl Steps {
    const WEEK: i64 = 7 * 24 * 60 * 60 * 1_000;
    /// The first Monday after the Unix epoch, which was a Thursday.
    const FIRST_MONDAY: i64 = 4 * 24 * 60 * 60 * 1_000;

    fn of(from: Timestamp, to: Timestamp, step: Duration) -> Self {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let origin = if step % Self::WEEK == 0 { Self::FIRST_MONDAY } else { 0 };
        let start = |time: Timestamp| time.as_millis() - (time.as_millis() - origin).rem_euclid(step);
        Self { first: start(from), last: start(to), step }
    }

    /// Returns a point for each step. `samples` are in the order of time.
    fn points(self, samples: &[Sample]) -> Vec<Point> {
        let Self { first, last, step } = self;
        let starts = std::iter::successors(Some(first), |start| start.checked_add(step));
        let mut samples = samples.iter().peekable();
        let points = starts.take_while(|start| *start <= last).map(|start| {
            let (mut last, end) = (None, start.saturating_add(step));
            while let Some(sample) = samples.next_if(|sample| sample.at.as_millis() < end) {
                last = (sample.at.as_millis() >= start).then_some(*sample);
            }
            let (sampled_at, count) = last.map(|sample| (sample.at, sample.count)).unzip();
            Point { at: Timestamp::from_millis(start), to: Timestamp::from_millis(end), sampled_at, count }
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::redis::{Client, Limits, RedisUrl};

    const HOUR: i64 = 3_600_000;

    fn history(interval: &str) -> History {
        let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), max_pending: 1 };
        let connection = Client::new(RedisUrl::parse("redis://localhost").unwrap(), limits, Arc::default());
        History::new(Store::new(connection.unwrap()), Interval::parse(interval).unwrap())
    }

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn points_have_each_step_and_none_for_a_gap() {
        let samples = [(0, 5), (HOUR, 6), (4 * HOUR, 0), (5 * HOUR, 9)];
        let samples = samples.map(|(at, count)| Sample { at: time(at), count: Estimate::exact(count) });
        let counts = |from, to, hours: u64| {
            let steps = Steps::of(time(from), time(to), Duration::from_secs(3_600 * hours));
            steps
                .points(&samples)
                .into_iter()
                .map(|point| (point.at.as_millis() / HOUR, point.count.map(Estimate::count)))
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

    #[test]
    fn points_have_their_step_and_the_time_of_the_sample() {
        let samples =
            [(22 * HOUR, 5), (23 * HOUR, 6)].map(|(at, count)| Sample { at: time(at), count: Estimate::exact(count) });
        let points = Steps::of(time(0), time(30 * HOUR), Duration::from_secs(24 * 3_600)).points(&samples);
        let point = |day: i64, sampled_at, count: Option<u64>| Point {
            at: time(24 * day * HOUR),
            to: time(24 * (day + 1) * HOUR),
            sampled_at,
            count: count.map(Estimate::exact),
        };
        assert_eq!(points, [point(0, Some(time(23 * HOUR)), Some(6)), point(1, None, None)]);
    }

    #[rstest]
    #[case::sunday("2026-11-22T23:59:59.999Z", 1, "2026-11-16T00:00:00Z")]
    #[case::monday("2026-11-23T00:00:00Z", 1, "2026-11-23T00:00:00Z")]
    #[case::before_the_first_monday("1970-01-04T12:00:00Z", 1, "1969-12-29T00:00:00Z")]
    #[case::two_weeks("2026-11-22T10:00:00Z", 2, "2026-11-09T00:00:00Z")]
    fn weeks_begin_on_monday(#[case] at: &str, #[case] weeks: u64, #[case] start: &str) {
        let (at, start) = (Timestamp::from_rfc3339(at).unwrap(), Timestamp::from_rfc3339(start).unwrap());
        let steps = Steps::of(at, at, Duration::from_secs(weeks * 7 * 24 * 3_600));
        assert_eq!(time(steps.first), start);
    }

    #[rstest]
    #[case::two_weeks("1h", 14 * 24, 60)]
    #[case::thirty_days("1h", 30 * 24, 120)]
    #[case::thirteen_months("1h", 396 * 24, 1_440)]
    #[case::no_time("1h", 0, 60)]
    #[case::a_day_of_minutes("1m", 24, 5)]
    #[case::not_sampled("off", 14 * 24, 60)]
    #[case::ninety_seconds("90s", 1, 1)]
    fn default_step_is_a_round_multiple_of_the_interval(
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
    fn default_step_grows_with_the_time() {
        let (from, to) = (time(0), time(100 * 365 * 24 * HOUR));
        let step = history("1h").default_step(from, to);
        assert!(step.as_secs().is_multiple_of(3_600) && History::steps(from, to, step) <= 401, "{step:?}");
    }
}
