//! A generated population: segments with members and histories, the same for the same seed.
//!
//! A user is in a segment from the first visit until a window after the last one. The members have the time of their
//! last visit. Users who have left are only in the history.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Demo, names};
use crate::domain::{SegmentName, Timestamp, UserId, Window};
use crate::store::Sample;

/// A generated segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName<'static>,
    /// The users who are in it now, with the time of their last visit.
    pub(super) members: Vec<(UserId<'static>, Timestamp)>,
    /// The count at each tick, the earliest first.
    pub(super) history: Vec<Sample>,
}

/// The activity in each hour of the day, in UTC, relative to the busiest hour.
const ACTIVITY: [f64; 24] = [
    0.30, 0.20, 0.14, 0.10, 0.10, 0.14, 0.26, 0.42, 0.55, 0.60, 0.62, 0.66, 0.70, 0.64, 0.58, 0.58, 0.64, 0.74, 0.86,
    0.96, 1.00, 0.92, 0.72, 0.48,
];

/// Returns the sizes of the segments. The size of the n-th falls nearly as 1/n, by Zipf's law.
pub(super) fn sizes(demo: &Demo) -> impl Iterator<Item = usize> + use<> {
    let largest = demo.users as f64 * 0.2;
    (1..=demo.segments).map(move |rank| (largest / (rank as f64).powf(0.9)).ceil() as usize)
}

/// Generates the segments of `demo` at `now`, the largest first.
pub(super) fn segments(demo: Demo, window: Window, now: Timestamp) -> impl Iterator<Item = Segment> {
    let names = names::names(demo.segments, &mut StdRng::seed_from_u64(demo.seed));
    let named = (1_u64..).zip(names).zip(sizes(&demo));
    named.map(move |((rank, name), size)| {
        // Each segment has its own generator, and draws its times last: how many numbers they take depends on `now`.
        let random = StdRng::seed_from_u64(demo.seed.wrapping_add(rank << 32));
        Generator { demo, window, now, random }.segment(name, size)
    })
}

/// The generator of one segment.
struct Generator {
    demo: Demo,
    window: Window,
    now: Timestamp,
    random: StdRng,
}

impl Generator {
    fn segment(mut self, name: String, size: usize) -> Segment {
        let window = self.window.duration();
        // The shares of members who joined, and of further users who left, during the history.
        let (joined, left) = (self.random.random_range(0.05..0.55), self.random.random_range(0.05..0.45));
        let users = rand::seq::index::sample(&mut self.random, self.demo.users, size);
        let mut changes = Vec::new();
        let mut members = Vec::with_capacity(size);
        for user in users {
            let mut last_seen = self.draw_time(|random| window.mul_f64(draw_age(random)));
            if self.random.random_bool(joined) {
                let span = window.min(Demo::HISTORY).mul_f64(0.999);
                let mut first_seen = self.draw_time(|random| span.mul_f64(random.random_range(0.0..1.0)));
                if first_seen > last_seen {
                    std::mem::swap(&mut first_seen, &mut last_seen);
                }
                changes.push((first_seen, 1));
            }
            members.push((UserId::parse(format!("u{user:06}")).expect("the id is a short text"), last_seen));
        }
        for _ in 0..(size as f64 * left) as usize {
            changes.push((self.draw_time(|random| Demo::HISTORY.mul_f64(random.random_range(0.0..1.0))), -1));
        }
        let name = SegmentName::parse(name).expect("the name consists of letters, digits and hyphens");
        Segment { name, members, history: self.history(size, changes) }
    }

    /// Draws a time before now with the density of [`ACTIVITY`]. `draw_age` draws how long ago it is.
    fn draw_time(&mut self, draw_age: impl Fn(&mut StdRng) -> Duration) -> Timestamp {
        loop {
            let time = self.now - draw_age(&mut self.random);
            let hour = time.as_millis().rem_euclid(86_400_000) / 3_600_000;
            if self.random.random_bool(ACTIVITY[hour as usize]) {
                return time;
            }
        }
    }

    /// Returns the counts at all ticks up to now, when the count is `size`. `changes` are +1 when a user joined, and -1
    /// when one left.
    fn history(&self, size: usize, mut changes: Vec<(Timestamp, i64)>) -> Vec<Sample> {
        changes.sort_unstable();
        let mut count = size as i64 - changes.iter().map(|(_, change)| change).sum::<i64>();
        let mut changes = changes.into_iter().peekable();
        let mut tick = self.demo.interval.tick(self.now - Demo::HISTORY);
        let mut history = Vec::new();
        while tick <= self.now {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= tick) {
                count += change;
            }
            history.push(Sample { at: tick, count: u64::try_from(count).expect("at most the users inside leave") });
            tick = tick + self.demo.interval.duration();
        }
        history
    }
}

/// Draws the age of a visit as a fraction of the window. Most visits are recent.
fn draw_age(random: &mut StdRng) -> f64 {
    loop {
        let age = -0.35 * (1.0 - random.random_range(0.0..1.0_f64)).ln();
        // Not the very end, so that no member expires before all are written.
        if age < 0.995 {
            return age;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::estimator::history::Interval;

    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn demo(seed: u64) -> Demo {
        Demo { segments: 320, users: 5_000, seed, interval: Interval::parse("1h").unwrap().unwrap() }
    }

    fn population(seed: u64) -> Vec<Segment> {
        segments(demo(seed), Window::parse("14d").unwrap(), NOON).collect()
    }

    #[test]
    fn segments_are_the_same_for_the_same_seed_only() {
        let text = |seed| format!("{:?}", population(seed));
        let (first, other) = (text(7), text(8));
        assert!(first == text(7) && first != other);
    }

    #[test]
    fn segments_have_the_same_users_at_another_time_of_day() {
        let users = |now| {
            let all = segments(demo(7), Window::parse("14d").unwrap(), now);
            let users = |segment: Segment| {
                segment.members.into_iter().map(|(user, _)| user.as_str().to_owned()).collect::<Vec<_>>()
            };
            all.map(users).collect::<Vec<_>>()
        };
        assert_eq!(users(NOON), users(NOON + Duration::from_secs(7 * 3_600)));
    }

    #[test]
    fn segments_have_different_names_and_each_user_once() {
        let segments = population(7);
        assert_eq!(segments.iter().map(|segment| segment.name.as_str()).collect::<HashSet<_>>().len(), 320);
        for Segment { name, members, .. } in &segments {
            let users: HashSet<_> = members.iter().map(|(user, _)| user.as_str()).collect();
            assert_eq!(users.len(), members.len(), "{name}");
        }
        let visits: usize = segments.iter().map(|segment| segment.members.len()).sum();
        assert_eq!(visits as u64, demo(7).visits());
    }

    #[test]
    fn segments_have_live_members_and_sizes_by_zipf() {
        let segments = population(7);
        let cutoff = Window::parse("14d").unwrap().cutoff(NOON);
        for Segment { name, members, .. } in &segments {
            assert!(members.iter().all(|(_, last_seen)| *last_seen > cutoff && *last_seen <= NOON), "{name}");
        }
        let size = |rank: usize| segments[rank - 1].members.len();
        assert_eq!([size(1), size(10), size(100)], [1_000, 126, 16]);
    }

    #[test]
    fn history_has_every_hour_and_ends_in_the_count() {
        for Segment { name, members, history } in population(7) {
            assert_eq!(history.len(), 14 * 24 + 1, "{name}");
            // `now` is a full hour.
            assert_eq!(history.last(), Some(&Sample { at: NOON, count: members.len() as u64 }), "{name}");
            assert!(history.windows(2).all(|pair| pair[1].at == pair[0].at + Duration::from_secs(3_600)), "{name}");
        }
    }

    #[test]
    fn segments_have_more_visits_in_the_evening_and_grow_or_shrink() {
        let segments = population(7);
        let hours = |from: i64, to: i64| {
            let members = segments.iter().flat_map(|segment| &segment.members);
            let hour = |last_seen: Timestamp| last_seen.as_millis() / 3_600_000 % 24;
            members.filter(|(_, last_seen)| (from..to).contains(&hour(*last_seen))).count()
        };
        assert!(hours(18, 22) > 4 * hours(2, 6), "{} in the evening, {} at night", hours(18, 22), hours(2, 6));
        let grown = segments.iter().filter(|segment| segment.history[0].count < segment.members.len() as u64).count();
        assert!((50..270).contains(&grown), "{grown} of 320 have grown");
    }
}
