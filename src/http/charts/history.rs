//! The chart of a segment's past counts.

use std::time::Duration;

use super::axis;
use super::{Chart, DataPoint, Marks};
use crate::domain::{Estimate, Timestamp};
use crate::estimator::history::{History, Point};
use crate::http::format;

/// Past counts between two times.
#[derive(Debug, Clone, Copy)]
pub struct PastCounts<'a> {
    /// All samples, the oldest first. Those of the week before `from` are compared with, and not shown.
    pub points: &'a [Point],
    pub from: Timestamp,
    pub to: Timestamp,
    /// Distance of the points in the chart.
    pub step: Duration,
    /// The count at `to`, if it is of this moment.
    pub live: Option<Estimate>,
}

impl PastCounts<'_> {
    /// Points are compared with those of this time before.
    pub const WEEK: Duration = Duration::from_secs(7 * 86_400);
    /// More points can't be distinguished in a chart of usual width.
    pub const MAX_POINTS: u64 = 170;

    /// Returns the samples between the two times.
    pub fn shown(&self) -> &[Point] {
        let begin = self.points.partition_point(|point| point.to <= self.from);
        let end = self.points.partition_point(|point| match (point.sampled_at, self.live) {
            // The step of `to` may have a later sample.
            (Some(sampled_at), _) => sampled_at <= self.to,
            // Its sample is still to come. Until then the count of this moment stands for it.
            (None, Some(_)) => point.to <= self.to,
            (None, None) => point.at <= self.to,
        });
        self.points.get(begin..end).unwrap_or_default()
    }

    /// Returns whether there are samples between the two times.
    pub fn has_samples(&self) -> bool {
        self.shown().iter().any(|point| point.count.is_some())
    }

    /// Returns the chart.
    pub fn chart(&self) -> Chart {
        let points = self.data_points();
        Chart {
            label: self.label(),
            x_label: "Time, UTC".to_owned(),
            x_ticks: axis::times(self.from, self.to, 8),
            marks: Marks::Line(points),
        }
    }

    fn data_points(&self) -> Vec<DataPoint> {
        let length = (self.to.as_millis() - self.from.as_millis()).max(1) as f64;
        let samples = downsample(self.shown(), self.step)
            .into_iter()
            .map(|point| (point.sampled_at.unwrap_or(point.at), point.count, false));
        let live = self.live.map(|count| (self.to, Some(count), true));
        let mut before = None;
        let mut data_point = |(time, count, is_live): (Timestamp, Option<Estimate>, bool)| {
            let reading = self.reading(time, count, is_live, before);
            before = count.map(|count| (time, count)).or(before);
            let at = ((time.as_millis() - self.from.as_millis()) as f64 / length).clamp(0.0, 1.0);
            let count = count.map(Estimate::count);
            DataPoint { count, at, step_start: History::step_start(time, self.step), is_live, reading }
        };
        samples.chain(live).map(&mut data_point).collect()
    }

    /// Returns a point in words. It is compared with a week before, or else with the point `before` it.
    fn reading(
        &self,
        time: Timestamp,
        count: Option<Estimate>,
        is_live: bool,
        before: Option<(Timestamp, Estimate)>,
    ) -> String {
        let at = format!("{}{} UTC", if is_live { "Now, " } else { "" }, self.moment(time));
        let Some(count) = count else { return format!("{at}: no data") };
        let users = format::counted_users(count);
        match (self.week_before(time), before) {
            (Some(then), _) => format!("{at}: {users}, {} on a week before", format::change(then, count)),
            (None, Some((at_before, then))) => {
                format!("{at}: {users}, {} since {}", format::change(then, count), self.moment(at_before))
            }
            (None, None) => format!("{at}: {users}"),
        }
    }

    /// Returns the sample of a week before `time`, in the step of that time.
    fn week_before(&self, time: Timestamp) -> Option<Estimate> {
        let then = time - Self::WEEK;
        let index = self.points.partition_point(|point| point.to <= then);
        self.points.get(index).filter(|point| point.at <= then)?.count
    }

    fn label(&self) -> String {
        let counts: Vec<_> = downsample(self.shown(), self.step).into_iter().filter_map(|point| point.count).collect();
        let counts = || counts.iter().copied().chain(self.live);
        let range = format!("Line chart, {} to {} UTC", self.moment(self.from), self.moment(self.to));
        let (Some(first), Some(last)) = (counts().next(), counts().last()) else { return format!("{range}: no data.") };
        let extremes = || self.shown().iter().filter_map(|point| point.count).chain(self.live);
        let by_count = |count: &Estimate| count.count();
        format!(
            "{range}: from {} to {}, {}, between {} and {}.",
            format::users(first),
            format::counted_users(last),
            format::change(first, last),
            format::users(extremes().min_by_key(by_count).unwrap_or_default()),
            format::users(extremes().max_by_key(by_count).unwrap_or_default()),
        )
    }

    /// Formats a time, with its year if the chart shows more than one.
    fn moment(&self, time: Timestamp) -> String {
        let is_of_one_year = format::year(self.from) == format::year(self.to);
        if is_of_one_year { format::minute(time) } else { format!("{} {}", format::date(time), format::hour(time)) }
    }
}

/// Returns the last sample of each step, or a point without a count if there is none.
fn downsample(points: &[Point], step: Duration) -> Vec<Point> {
    let step_of = |point: &Point| History::step_start(point.at, step);
    let steps = points.chunk_by(|one, next| step_of(one) == step_of(next));
    steps.filter_map(|step| step.iter().rev().find(|point| point.count.is_some()).or(step.first()).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Depth;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn time(text: &str) -> Timestamp {
        Timestamp::from_rfc3339(text).unwrap()
    }

    /// Returns hourly samples since `from`.
    fn samples(from: &str, counts: impl IntoIterator<Item = Option<u64>>) -> Vec<Point> {
        let point = |(index, count): (u32, Option<u64>)| {
            let at = time(from) + HOUR * index;
            Point { at, to: at + HOUR, sampled_at: count.map(|_| at), count: count.map(Into::into) }
        };
        (0..).zip(counts).map(point).collect()
    }

    fn past<'a>(points: &'a [Point], from: &str, to: &str, live: Option<u64>) -> PastCounts<'a> {
        PastCounts { points, from: time(from), to: time(to), step: HOUR, live: live.map(Into::into) }
    }

    fn readings(chart: &Chart) -> Vec<&str> {
        let Marks::Line(points) = &chart.marks else { panic!("{chart:?}") };
        points.iter().map(|point| point.reading.as_str()).collect()
    }

    #[test]
    fn points_are_compared_with_a_week_before_or_with_the_point_before() {
        // 4,000 users a week before each, but for the second hour, and none in the hour before the last.
        let points = samples(
            "2026-11-15T08:00:00Z",
            (0..171).map(|hour| match hour {
                0..=2 => (hour != 1).then_some(4_000),
                169 => None,
                hour => Some(3_832 + hour),
            }),
        );
        let past = past(&points, "2026-11-22T08:00:00Z", "2026-11-22T10:30:00Z", Some(4_000));
        let chart = past.chart();
        let expected = [
            "22 Nov 08:00 UTC: 4,000 users, unchanged on a week before",
            "22 Nov 09:00 UTC: no data",
            "22 Nov 10:00 UTC: 4,002 users, up 2 (+0.1%) on a week before",
            "Now, 22 Nov 10:30 UTC: 4,000 users, unchanged on a week before",
        ];
        assert_eq!(readings(&chart), expected);
        let label = "Line chart, 22 Nov 08:00 to 22 Nov 10:30 UTC: from 4,000 to 4,000 users, unchanged, between 4,000 and 4,002.";
        assert_eq!(chart.label, label);
        assert_eq!(chart.chief_reading(), (3, expected[3]));

        let new = PastCounts { points: &points[168..], ..past }.chart();
        let expected = "22 Nov 10:00 UTC: 4,002 users, up 2 (+0.1%) since 22 Nov 08:00";
        assert_eq!((readings(&new)[0], readings(&new)[2]), ("22 Nov 08:00 UTC: 4,000 users", expected));
    }

    #[test]
    fn point_is_the_same_after_the_next_sample_of_its_step() {
        let points = samples("2026-11-22T06:00:00Z", (0..6).map(Some));
        let step_starts = |to: &str, count: usize| {
            let past = PastCounts { step: HOUR * 2, ..past(&points[..count], "2026-11-22T06:00:00Z", to, None) };
            let Marks::Line(points) = past.chart().marks else { panic!("{past:?}") };
            points.iter().map(|point| point.step_start.to_string()).collect::<Vec<_>>()
        };
        let expected = ["2026-11-22T06:00:00.000Z", "2026-11-22T08:00:00.000Z", "2026-11-22T10:00:00.000Z"];
        assert_eq!(step_starts("2026-11-22T10:59:00Z", 5), expected);
        assert_eq!(step_starts("2026-11-22T11:01:00Z", 6), expected);
    }

    #[test]
    fn step_of_this_moment_is_no_gap_before_its_sample() {
        let points = samples("2026-11-22T08:00:00Z", [Some(1), Some(2), None, Some(4), None]);
        let counts = |to: &str, live: Option<u64>| {
            let Marks::Line(points) = past(&points, "2026-11-22T08:00:00Z", to, live).chart().marks else { panic!() };
            points.iter().map(|point| point.count).collect::<Vec<_>>()
        };
        let shown = [Some(1), Some(2), None, Some(4)];
        assert_eq!(counts("2026-11-22T12:00:02Z", Some(5)), [&shown[..], &[Some(5)]].concat());
        assert_eq!(counts("2026-11-22T13:00:00Z", Some(5)), [&shown[..], &[None, Some(5)]].concat(), "a missed sample");
        assert_eq!(counts("2026-11-22T12:00:02Z", None), [&shown[..], &[None]].concat());
    }

    #[test]
    fn point_has_the_time_of_its_sample() {
        let (at, sampled_at) = (time("2026-11-22T10:00:00Z"), time("2026-11-22T10:09:00Z"));
        let to = time("2026-11-22T10:10:00Z");
        let points = [Point { at, to, sampled_at: Some(sampled_at), count: Some(7.into()) }];
        let chart = past(&points, "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z", None).chart();
        assert_eq!(readings(&chart), ["22 Nov 10:09 UTC: 7 users"]);
        let Marks::Line(points) = &chart.marks else { panic!("{chart:?}") };
        assert_eq!((points[0].at, points[0].step_start), (0.15, at));
    }

    #[test]
    fn samples_outside_the_times_are_not_shown() {
        let points = samples("2026-11-22T00:00:00Z", (0..24).map(Some));
        let past = past(&points, "2026-11-22T05:30:00Z", "2026-11-22T08:59:59Z", None);
        assert_eq!(past.shown().iter().filter_map(|point| point.count).collect::<Vec<_>>(), [5, 6, 7, 8]);
        let steps = PastCounts { step: HOUR * 6, ..past }.chart();
        let readings = readings(&steps);
        assert!(readings[0].starts_with("22 Nov 05:00 UTC: 5") && readings[1].starts_with("22 Nov 08:00 UTC: 8"));
        let later = PastCounts { from: time("2026-11-23T00:00:00Z"), to: time("2026-11-23T01:00:00Z"), ..past };
        assert_eq!(later.chart().label, "Line chart, 23 Nov 00:00 to 23 Nov 01:00 UTC: no data.");
    }

    #[test]
    fn estimates_are_marked_and_compared_within_their_errors() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let mut points = samples("2026-11-22T08:00:00Z", [Some(1), Some(1), Some(1)]);
        for (point, kept) in points.iter_mut().zip([40_000, 40_100, 44_000]) {
            point.count = Some(estimate(kept));
        }
        let past = past(&points, "2026-11-22T08:00:00Z", "2026-11-22T10:30:00Z", None);
        let chart = PastCounts { live: Some(estimate(44_100)), ..past }.chart();
        let expected = [
            "22 Nov 08:00 UTC: ≈ 5,120,000 users",
            "22 Nov 09:00 UTC: ≈ 5,130,000 users, unchanged within the error since 22 Nov 08:00",
            "22 Nov 10:00 UTC: ≈ 5,630,000 users, up ≈ 499,000 (+9.7%) since 22 Nov 09:00",
            "Now, 22 Nov 10:30 UTC: ≈ 5,640,000 users, unchanged within the error since 22 Nov 10:00",
        ];
        assert_eq!(readings(&chart), expected);
        let label =
            "from ≈ 5,120,000 to ≈ 5,640,000 users, up ≈ 525,000 (+10.2%), between ≈ 5,120,000 and ≈ 5,640,000.";
        assert!(chart.label.ends_with(label), "{}", chart.label);
    }

    #[test]
    fn times_of_two_years_have_their_year() {
        let points = samples("2025-12-31T23:00:00Z", [Some(1), Some(2)]);
        let chart = past(&points, "2025-12-31T23:00:00Z", "2026-01-01T00:00:00Z", None).chart();
        let expected =
            ["31 Dec 2025 23:00 UTC: 1 user", "1 Jan 2026 00:00 UTC: 2 users, up 1 (+100.0%) since 31 Dec 2025 23:00"];
        assert_eq!(readings(&chart), expected);
    }
}
