//! Generates one segment: the times of its visits, and its history.
//!
//! A user is in a segment from the first visit until a window after the last one. The members have the time of their
//! last visit. Users who have left are only in the history.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::names::{Course, Topic, VISITORS};
use super::parameters::Demo;
use crate::domain::{SegmentName, Timestamp, UserId};
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
/// The activity on each day of the week from Monday on, relative to the busiest day.
const WEEK: [f64; 7] = [0.66, 0.60, 0.60, 0.64, 0.76, 1.00, 0.96];

/// The age of the first visit to the new segment, unless the window is shorter.
const NEW_SINCE: Duration = Duration::from_secs(4 * 24 * 60 * 60);
/// The age of the last visit to the segment that has ended, as a share of the window.
const ENDED_SINCE: f64 = 0.7;
/// The share of the users of that segment who are still in it.
const STILL_INSIDE: f64 = 0.6;

/// The shares of all users who joined, and of further users who left, during the history. Few have last visits that are
/// about to expire.
const VISITORS_JOINED: f64 = 0.08;
const VISITORS_LEFT: f64 = 0.02;

/// Returns how many of the users of the segment that has ended are still in it.
pub(super) fn still_inside(interested: usize) -> usize {
    ((interested as f64 * STILL_INSIDE) as usize).max(1)
}

/// The generator of one segment.
pub(super) struct Generator {
    pub(super) demo: Demo,
    pub(super) window: Duration,
    pub(super) now: Timestamp,
    pub(super) random: StdRng,
}

impl Generator {
    /// Generates the segment of a topic with all users who are interested in it.
    pub(super) fn topic(self, topic: Topic, users: &[usize]) -> Segment {
        match topic.course {
            Course::Steady => self.steady(topic.name, &users.iter().map(|user| (*user, None)).collect::<Vec<_>>()),
            Course::New => self.new_segment(topic.name, users),
            Course::Ended => self.ended_segment(topic.name, users),
        }
    }

    /// Generates a segment with visits at all times. A user may have a last visit that the one to this segment is not
    /// later than.
    pub(super) fn steady(mut self, name: &str, users: &[(usize, Option<Timestamp>)]) -> Segment {
        // The shares of members who joined, and of further users who left, during the history.
        let (joined, left) = (self.random.random_range(0.05..0.55), self.random.random_range(0.05..0.45));
        let mut changes = Vec::new();
        let mut members = Vec::with_capacity(users.len());
        for (user, latest) in users {
            let last_seen = self.draw_time(|this| this.window.mul_f64(draw_age(&mut this.random, 0.0, 0.995)));
            let mut last_seen = latest.map_or(last_seen, |latest| latest.min(last_seen));
            if self.random.random_bool(joined) {
                let mut first_seen = self.draw_first_visit();
                if first_seen > last_seen && latest.is_none() {
                    std::mem::swap(&mut first_seen, &mut last_seen);
                }
                changes.push((first_seen.min(last_seen), 1));
            }
            members.push((user_id(*user), last_seen));
        }
        self.push_departures(&mut changes, users.len() as f64 * left);
        let start = self.now - Demo::HISTORY;
        self.finish(name, members, changes, start)
    }

    /// Generates the segment of all users, given the time of the last visit of each.
    pub(super) fn visitors(mut self, last_visits: &[Timestamp]) -> Segment {
        let mut changes = Vec::new();
        for last_seen in last_visits {
            if self.random.random_bool(VISITORS_JOINED) {
                changes.push((self.draw_first_visit().min(*last_seen), 1));
            }
        }
        self.push_departures(&mut changes, last_visits.len() as f64 * VISITORS_LEFT);
        let members = last_visits.iter().enumerate().map(|(user, last_seen)| (user_id(user), *last_seen)).collect();
        let start = self.now - Demo::HISTORY;
        self.finish(VISITORS, members, changes, start)
    }

    /// Draws the time of the first visit of a member who joined during the history.
    fn draw_first_visit(&mut self) -> Timestamp {
        let span = self.window.min(Demo::HISTORY).mul_f64(0.999);
        self.draw_within(Duration::ZERO, span)
    }

    /// Adds `number` users who left during the history to `changes`.
    fn push_departures(&mut self, changes: &mut Vec<(Timestamp, i64)>, number: f64) {
        for _ in 0..number as usize {
            let last_seen = self.draw_within(self.window, self.window + Demo::HISTORY);
            changes.push((last_seen + self.window, -1));
        }
    }

    /// Generates a segment whose users have all joined since a few days ago.
    fn new_segment(mut self, name: &str, users: &[usize]) -> Segment {
        let span = NEW_SINCE.min(self.window.mul_f64(0.9));
        let (mut changes, mut members) = (Vec::with_capacity(users.len()), Vec::with_capacity(users.len()));
        for user in users {
            let (one, other) = (self.draw_within(Duration::ZERO, span), self.draw_within(Duration::ZERO, span));
            changes.push((one.min(other), 1));
            members.push((user_id(*user), one.max(other)));
        }
        // The first sample is that of the tick after the first visit.
        let first_seen = changes.iter().map(|(first_seen, _)| *first_seen).min().unwrap_or(self.now);
        let start = first_seen + self.demo.interval.duration();
        self.finish(name, members, changes, start)
    }

    /// Generates a segment without visits for some days, whose users are leaving.
    fn ended_segment(mut self, name: &str, users: &[usize]) -> Segment {
        let (still_inside, since) = (still_inside(users.len()), self.window.mul_f64(ENDED_SINCE));
        let mut changes = Vec::new();
        let members = users[..still_inside].iter().map(|user| {
            let last_seen = self.draw_time(|this| this.window.mul_f64(draw_age(&mut this.random, ENDED_SINCE, 0.995)));
            (user_id(*user), last_seen)
        });
        let members: Vec<_> = members.collect();
        for _ in still_inside..users.len() {
            let last_seen =
                self.draw_time(|this| this.window.mul_f64(draw_age(&mut this.random, 1.0, 1.0 + ENDED_SINCE)));
            changes.push((last_seen + self.window, -1));
        }
        // Before the end, as many joined as left.
        if since < Demo::HISTORY {
            for user in 0..users.len() / 5 {
                let change = if user % 2 == 0 { 1 } else { -1 };
                changes.push((self.draw_within(since, Demo::HISTORY), change));
            }
        }
        let start = self.now - Demo::HISTORY;
        self.finish(name, members, changes, start)
    }

    /// Draws a time of the given ages.
    fn draw_within(&mut self, from: Duration, to: Duration) -> Timestamp {
        self.draw_time(|this| from + (to - from).mul_f64(this.random.random_range(0.0..1.0)))
    }

    /// Draws a time before now with the density of [`ACTIVITY`] and [`WEEK`]. `draw_age` draws how long ago it is.
    fn draw_time(&mut self, draw_age: impl Fn(&mut Self) -> Duration) -> Timestamp {
        loop {
            let time = self.now - draw_age(self);
            let hours = time.as_millis().div_euclid(3_600_000);
            // The first day of Unix time was a Thursday.
            let (hour, day) = (hours.rem_euclid(24), (hours.div_euclid(24) + 3).rem_euclid(7));
            if self.random.random_bool(ACTIVITY[hour as usize] * WEEK[day as usize]) {
                return time;
            }
        }
    }

    /// Returns the segment with a history from `start` on. `changes` are +1 when a user joined, and -1 when one left.
    fn finish(
        self,
        name: &str,
        members: Vec<(UserId<'static>, Timestamp)>,
        mut changes: Vec<(Timestamp, i64)>,
        start: Timestamp,
    ) -> Segment {
        changes.sort_unstable();
        let mut count = members.len() as i64 - changes.iter().map(|(_, change)| change).sum::<i64>();
        let mut changes = changes.into_iter().peekable();
        let interval = self.demo.interval;
        let mut tick = interval.tick(start);
        let mut history = Vec::new();
        while tick <= self.now {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= tick) {
                count += change;
            }
            history
                .push(Sample { at: tick, count: u64::try_from(count).expect("at most the users inside leave").into() });
            tick = tick + interval.duration();
        }
        let name = SegmentName::parse(name.to_owned()).expect("the name consists of letters, digits and hyphens");
        Segment { name, members, history }
    }
}

fn user_id(user: usize) -> UserId<'static> {
    UserId::parse(format!("u{user:06}")).expect("the id is a short text")
}

/// Draws the age of a visit as a fraction of the window, after `least` and before `end`. Most visits are recent, also
/// those before `least`.
fn draw_age(random: &mut StdRng, least: f64, end: f64) -> f64 {
    loop {
        // Not the very end, so that no member expires before all are written.
        let age = least - 0.35 * (1.0 - random.random_range(0.0..1.0_f64)).ln();
        if age < end {
            return age;
        }
    }
}
