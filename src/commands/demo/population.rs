//! Who is in which segment, since when, and seen when: made up, the same for the same seed.
//!
//! A user is in a segment from the first visit until the window after the last one is over. Those who are in now have their last
//! visit written; those who were in until lately are in the history alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Demo, names, rhythm};
use crate::domain::{SegmentName, Timestamp, UserId, Window};
use crate::estimator::history::Interval;
use crate::store::Sample;

/// All segments, the largest first.
pub struct Population {
    seed: u64,
    segments: std::iter::Enumerate<std::iter::Zip<std::vec::IntoIter<String>, std::vec::IntoIter<usize>>>,
    users: usize,
    window: Window,
    interval: Interval,
    now: Timestamp,
}

/// A segment that is made up.
#[derive(Debug)]
pub struct Segment {
    /// Its name.
    pub name: SegmentName<'static>,
    /// Those who are in it now.
    pub members: Vec<Member>,
    /// How many were in it at each turn, the earliest first.
    pub history: Vec<Sample>,
}

/// A member of a segment.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub user_id: UserId<'static>,
    /// When the last visit was.
    pub last_seen: Timestamp,
}

/// How large each of so many segments of so many users is: the second half as large as the first, the third a third, and so on, as
/// such things mostly are.
pub(super) fn sizes(segments: usize, users: usize) -> impl Iterator<Item = usize> {
    let largest = users as f64 * 0.2;
    (1..=segments).map(move |rank| (largest / (rank as f64).powf(0.9)).ceil() as usize)
}

impl Population {
    /// The population of `demo` at `now`.
    #[must_use]
    pub fn new(demo: &Demo, window: Window, now: Timestamp) -> Self {
        let mut random = StdRng::seed_from_u64(demo.seed);
        let names = names::names(demo.segments, &mut random);
        let sizes: Vec<_> = sizes(demo.segments, demo.users).collect();
        let segments = names.into_iter().zip(sizes).enumerate();
        Self { seed: demo.seed, segments, users: demo.users, window, interval: demo.interval, now }
    }

    fn segment(&self, place: usize, name: String, size: usize) -> Segment {
        let Self { users, window, now, .. } = *self;
        // Of its own, and for times at the end: how many chances these take depends on what the time is.
        let random = &mut StdRng::seed_from_u64(self.seed.wrapping_add((place as u64 + 1) << 32));
        let life = window.duration();
        // How many of them came within the time of the history, and how many others left in it.
        let (came, left) = (random.random_range(0.05..0.55), random.random_range(0.05..0.45));
        // Of some segments a campaign brought many within hours.
        let campaign = random.random_bool(0.15).then(|| Demo::HISTORY.mul_f64(random.random_range(0.1..0.9)));

        // Each user once: steps of a length that has no factor in common with their number lead to all of them.
        let (start, stride) = (random.random_range(0..users), stride(users, random));
        let mut changes = Vec::new();
        let mut members = Vec::with_capacity(size);
        for n in 0..size {
            let mut last_seen = rhythm::moment(now, random, |random| recently(life, random));
            if random.random_bool(came) {
                let span = life.min(Demo::HISTORY).mul_f64(0.999);
                let mut first = match campaign {
                    Some(age) if age < span && random.random_bool(0.6) => {
                        now - age + span.mul_f64(0.03 * random.random_range(0.0..1.0))
                    }
                    _ => rhythm::moment(now, random, |random| span.mul_f64(random.random_range(0.0..1.0))),
                };
                if first > last_seen {
                    std::mem::swap(&mut first, &mut last_seen);
                }
                changes.push((first, 1));
            }
            let number = (start + n * stride) % users;
            let user_id = UserId::parse(format!("u{number:06}")).expect("it is a short text");
            members.push(Member { user_id, last_seen });
        }
        for _ in 0..(size as f64 * left) as usize {
            changes
                .push((rhythm::moment(now, random, |random| Demo::HISTORY.mul_f64(random.random_range(0.0..1.0))), -1));
        }
        let name = SegmentName::parse(name).expect("it is made of letters, digits and hyphens");
        Segment { name, members, history: self.history(size, changes) }
    }

    /// The counts at all turns up to now, when it is `size`, from who came (1) and who left (-1) when.
    fn history(&self, size: usize, mut changes: Vec<(Timestamp, i64)>) -> Vec<Sample> {
        changes.sort_unstable();
        let mut count = size as i64 - changes.iter().map(|(_, change)| change).sum::<i64>();
        let mut changes = changes.into_iter().peekable();
        let mut turn = self.interval.tick(self.now - Demo::HISTORY);
        let mut history = Vec::new();
        while turn <= self.now {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= turn) {
                count += change;
            }
            history.push(Sample { at: turn, count: u64::try_from(count).expect("nobody leaves who wasn't in") });
            turn = turn + self.interval.duration();
        }
        history
    }
}

impl Iterator for Population {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let (place, (name, size)) = self.segments.next()?;
        Some(self.segment(place, name, size))
    }
}

/// How long ago a visit was of somebody who counts for `life`: most were here lately, and some not for long.
fn recently(life: Duration, random: &mut StdRng) -> Duration {
    loop {
        let ages = -0.35 * (1.0 - random.random_range(0.0..1.0_f64)).ln();
        // Not the very end: they shall be there still when all is written.
        if ages < 0.995 {
            return life.mul_f64(ages);
        }
    }
}

/// A number without a factor in common with `users`.
fn stride(users: usize, random: &mut StdRng) -> usize {
    loop {
        let stride = random.random_range(1..=users);
        if greatest_common_divisor(users, stride) == 1 {
            return stride;
        }
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn demo(seed: u64) -> Demo {
        Demo { segments: 320, users: 5_000, seed, interval: Interval::parse("1h").unwrap().unwrap() }
    }

    fn population(seed: u64) -> Vec<Segment> {
        Population::new(&demo(seed), Window::parse("14d").unwrap(), NOON).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_and_another_seed_something_else() {
        let shown = |seed| format!("{:?}", population(seed));
        let (first, other) = (shown(7), shown(8));
        assert!(first == shown(7) && first != other);
    }

    #[test]
    fn at_another_time_of_day_there_are_the_same_users() {
        let users = |now| {
            let all = Population::new(&demo(7), Window::parse("14d").unwrap(), now);
            let users = |segment: Segment| {
                segment.members.into_iter().map(|member| member.user_id.as_str().to_owned()).collect::<Vec<_>>()
            };
            all.map(users).collect::<Vec<_>>()
        };
        assert_eq!(users(NOON), users(NOON + Duration::from_secs(7 * 3_600)));
    }

    #[test]
    fn every_segment_has_a_name_of_its_own_and_each_user_once() {
        let segments = population(7);
        assert_eq!(segments.iter().map(|segment| segment.name.as_str()).collect::<HashSet<_>>().len(), 320);
        for Segment { name, members, .. } in &segments {
            let users: HashSet<_> = members.iter().map(|member| member.user_id.as_str()).collect();
            assert_eq!(users.len(), members.len(), "{name}");
        }
        let visits: usize = segments.iter().map(|segment| segment.members.len()).sum();
        assert_eq!(visits as u64, demo(7).visits());
    }

    #[test]
    fn everybody_counts_now_and_sizes_fall_as_zipf_has_it() {
        let segments = population(7);
        let cutoff = Window::parse("14d").unwrap().cutoff(NOON);
        for Segment { name, members, .. } in &segments {
            assert!(members.iter().all(|member| member.last_seen > cutoff && member.last_seen <= NOON), "{name}");
        }
        let size = |rank: usize| segments[rank - 1].members.len();
        assert_eq!([size(1), size(10), size(100)], [1_000, 126, 16]);
    }

    #[test]
    fn the_history_ends_in_the_count_and_has_every_hour() {
        for Segment { name, members, history } in population(7) {
            assert_eq!(history.len(), 14 * 24 + 1, "{name}");
            // `now` is a full hour.
            assert_eq!(history.last(), Some(&Sample { at: NOON, count: members.len() as u64 }), "{name}");
            assert!(history.windows(2).all(|pair| pair[1].at == pair[0].at + Duration::from_secs(3_600)), "{name}");
        }
    }

    #[test]
    fn days_have_a_rhythm_and_segments_grow_or_shrink() {
        let segments = population(7);
        let hours = |from: i64, to: i64| {
            let members = segments.iter().flat_map(|segment| &segment.members);
            let hour = |member: &Member| member.last_seen.as_millis() / 3_600_000 % 24;
            members.filter(|member| (from..to).contains(&hour(member))).count()
        };
        assert!(hours(18, 22) > 4 * hours(2, 6), "{} in the evening, {} at night", hours(18, 22), hours(2, 6));
        let grown = segments.iter().filter(|segment| segment.history[0].count < segment.members.len() as u64).count();
        assert!((50..270).contains(&grown), "{grown} of 320 have grown");
    }
}
