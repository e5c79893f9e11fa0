//! A generated population, the same for the same seed.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::generator::{Generator, Segment, still_inside};
use super::interests::Interests;
use super::names::{Course, VISITORS};
use super::parameters::Demo;
use crate::domain::{Timestamp, Window};

/// Generates the segments of a demo.
#[derive(Debug)]
pub(super) struct Population {
    demo: Demo,
    interests: Interests,
}

impl Population {
    pub(super) fn new(demo: Demo) -> Self {
        Self { interests: Interests::new(&demo), demo }
    }

    /// Returns the number of members of all segments.
    pub(super) fn visits(&self) -> u64 {
        let topics = self.interests.topics.iter().zip(self.interests.sizes()).take(self.demo.segments);
        let topics = topics.map(|(topic, interested)| match topic.course {
            Course::Ended => still_inside(interested),
            Course::Steady | Course::New => interested,
        });
        let sub_segments =
            (0..self.interests.sub_segments.len()).map(|index| self.interests.size_of_sub_segment(index));
        let visitors = self.has_visitors().then(|| self.interests.user_count());
        topics.chain(sub_segments).chain(visitors).map(|size| size as u64).sum()
    }

    /// Returns whether there is a segment of all users. It comes after all topics: each user has two interests or more, and
    /// so is in one of them.
    fn has_visitors(&self) -> bool {
        self.demo.segments > self.interests.topics.len()
    }

    /// Names pages that show more than chance, a line each.
    pub(super) fn sights(&self) -> String {
        let Interests { topics, sub_segments, .. } = &self.interests;
        let written = &topics[..topics.len().min(self.demo.segments)];
        let mut sights = vec!["- /?sort=change: which segments grow, and /?sort=-change: which shrink".to_owned()];
        for topic in written {
            sights.extend(match topic.course {
                Course::New => Some(format!("- /pages/segment?name={}: began four days ago", topic.name)),
                Course::Ended => Some(format!("- /pages/segment?name={}: has had no visits for days", topic.name)),
                Course::Steady => None,
            });
        }
        if let Some(related) = written.iter().skip(1).find(|topic| topic.group == written[0].group) {
            let (one, other) = (written[0].name, related.name);
            let base = if self.has_visitors() { format!("segment={VISITORS}&") } else { String::new() };
            sights.push(format!(
                "- /pages/overlap?{base}segment={one}&segment={other}: more common users than by chance"
            ));
        }
        if let Some(sub) = sub_segments.first() {
            let (inner, outer) = (&sub.name, topics[sub.topic].name);
            sights.push(format!("- /pages/overlap?segment={outer}&segment={inner}: one lies mostly in the other"));
        }
        sights.join("\n")
    }

    /// Generates the segments at `now`: each topic, followed by its sub-segments, and at the end that of all users.
    pub(super) fn segments(&self, window: Window, now: Timestamp) -> impl Iterator<Item = Segment> {
        let Self { demo, interests } = self;
        // Each segment has its own generator, and draws its times last: how many numbers they take depends on `now`.
        let generator = move |rank: usize| {
            let random = StdRng::seed_from_u64(demo.seed.wrapping_add((rank as u64 + 1) << 32));
            Generator { demo: *demo, window: window.duration(), now, random }
        };
        let topics = interests.topics.len();
        let mut last_visits = vec![Timestamp::from_millis(0); interests.user_count()];
        (0..demo.segments.min(topics + 1)).flat_map(move |index| {
            if index == topics {
                let rank = topics + interests.sub_segments.len();
                return vec![generator(rank).visitors(&last_visits)];
            }
            let users = interests.users_of(index);
            let topic = generator(index).topic(interests.topics[index], &users);
            update_last_visits(&mut last_visits, users.iter().copied(), &topic);
            let times: Vec<_> = topic.members.iter().map(|(_, last_seen)| *last_seen).collect();
            let mut segments = vec![topic];
            for (rank, sub) in interests.sub_segments.iter().enumerate().filter(|(_, sub)| sub.topic == index) {
                let mut generator = generator(topics + rank);
                let (inside, others) = interests.draw_sub_segment(rank, &users, &mut generator.random);
                let inside = inside.into_iter().map(|position| (users[position], Some(times[position])));
                let users: Vec<_> = inside.chain(others.into_iter().map(|user| (user, None))).collect();
                let segment = generator.steady(&sub.name, &users);
                update_last_visits(&mut last_visits, users.iter().map(|(user, _)| *user), &segment);
                segments.push(segment);
            }
            segments
        })
    }
}

/// Updates the time of the last visit of each of `users`, the members of `segment` in the same order.
fn update_last_visits(last_visits: &mut [Timestamp], users: impl Iterator<Item = usize>, segment: &Segment) {
    for (user, (_, last_seen)) in users.zip(&segment.members) {
        last_visits[user] = last_visits[user].max(*last_seen);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::estimator::history::Interval;
    use crate::store::Sample;

    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn demo(seed: u64) -> Demo {
        Demo { segments: 320, users: 5_000, seed, interval: Interval::parse("1h").unwrap().unwrap() }
    }

    fn generate(demo: Demo, window: &str, now: Timestamp) -> Vec<Segment> {
        Population::new(demo).segments(Window::parse(window).unwrap(), now).collect()
    }

    fn population(seed: u64) -> Vec<Segment> {
        generate(demo(seed), "14d", NOON)
    }

    fn users(segment: &Segment) -> HashSet<&str> {
        segment.members.iter().map(|(user, _)| user.as_str()).collect()
    }

    fn of<'a>(segments: &'a [Segment], name: &str) -> &'a Segment {
        segments.iter().find(|segment| segment.name.as_str() == name).unwrap()
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
            let users = |segment: Segment| {
                segment.members.into_iter().map(|(user, _)| user.as_str().to_owned()).collect::<Vec<_>>()
            };
            generate(demo(7), "14d", now).into_iter().map(users).collect::<Vec<_>>()
        };
        assert_eq!(users(NOON), users(NOON + Duration::from_secs(7 * 3_600)));
    }

    #[test]
    fn segments_have_different_names_and_each_user_once() {
        let segments = population(7);
        assert_eq!(segments.iter().map(|segment| segment.name.as_str()).collect::<HashSet<_>>().len(), 320);
        for segment in &segments {
            assert_eq!(users(segment).len(), segment.members.len(), "{}", segment.name);
        }
        let visits: usize = segments.iter().map(|segment| segment.members.len()).sum();
        assert_eq!(visits as u64, Population::new(demo(7)).visits());
    }

    #[rstest]
    #[case::smallest(1, 10, "14d")]
    #[case::topics_alone(26, 500, "14d")]
    #[case::more_than_there_are_names(700, 500, "14d")]
    #[case::short_window(320, 2_000, "4m")]
    #[case::long_window(320, 2_000, "60d")]
    fn segments_have_live_members(#[case] segments: usize, #[case] users: usize, #[case] window: &str) {
        let demo = Demo { segments, users, ..demo(7) };
        let cutoff = Window::parse(window).unwrap().cutoff(NOON);
        let generated = generate(demo, window, NOON);
        assert_eq!(generated.len(), segments);
        for Segment { name, members, history } in &generated {
            assert!(!members.is_empty(), "{name}");
            assert!(members.iter().all(|(_, last_seen)| *last_seen > cutoff && *last_seen <= NOON), "{name}");
            let last = history.last().map(|sample| sample.count);
            assert!(last.is_none_or(|last| last == members.len() as u64), "{name}");
        }
    }

    #[test]
    fn topics_are_popular_by_rank_and_sub_segments_by_zipf() {
        let segments = population(7);
        let Interests { topics, sub_segments, .. } = Population::new(demo(7)).interests;
        let size = |name: &str| of(&segments, name).members.len();
        assert!((850..=1_150).contains(&size(topics[0].name)), "{} of 5,000", size(topics[0].name));
        assert!(size(topics[0].name) > 3 * size(topics[26].name));
        assert_eq!([0, 73].map(|index: usize| size(&sub_segments[index].name)), [50, 16]);
    }

    #[test]
    fn history_has_every_hour_and_ends_in_the_count() {
        for Segment { name, members, history } in population(7) {
            let hours = if name.as_str() == "podcasts" { 4 * 24 } else { 14 * 24 + 1 };
            assert_eq!(history.len(), hours, "{name}");
            // `now` is a full hour.
            assert_eq!(history.last(), Some(&Sample { at: NOON, count: (members.len() as u64).into() }), "{name}");
            assert!(history.windows(2).all(|pair| pair[1].at == pair[0].at + Duration::from_secs(3_600)), "{name}");
        }
    }

    #[test]
    fn segments_have_more_visits_in_the_evening_and_on_weekends_and_grow_or_shrink() {
        let segments = population(7);
        let visits = |from: i64, to: i64, unit: i64| {
            let members = segments.iter().flat_map(|segment| &segment.members);
            members.filter(|(_, last_seen)| (from..to).contains(&(last_seen.as_millis() / 3_600_000 % unit))).count()
        };
        assert!(visits(18, 22, 24) > 4 * visits(2, 6, 24), "evenings and nights");
        // Noon is on a Sunday, and Unix time began on a Thursday. More users have been seen last on a later day.
        let day = |days_ago: i64| {
            let today = NOON.as_millis() / 86_400_000;
            let members = segments.iter().flat_map(|segment| &segment.members);
            members.filter(|(_, last_seen)| last_seen.as_millis() / 86_400_000 == today - days_ago).count()
        };
        assert!(day(7) > day(6), "{} on a Sunday, {} on the Monday after it", day(7), day(6));
        assert!(day(8) > 3 * day(9) / 2, "{} on a Saturday, {} on the Friday before it", day(8), day(9));
        let grown =
            segments.iter().filter(|segment| segment.history[0].count.count() < segment.members.len() as u64).count();
        assert!((50..270).contains(&grown), "{grown} of 320 have grown");
    }

    #[test]
    fn sub_segments_lie_mostly_in_their_topics() {
        let segments = population(7);
        let Interests { topics, sub_segments, .. } = Population::new(demo(7)).interests;
        for sub in sub_segments {
            let (inner, outer) = (of(&segments, &sub.name), of(&segments, topics[sub.topic].name));
            let (inner, outer) = (users(inner), users(outer));
            let inside = inner.intersection(&outer).count();
            assert!(inside * 10 >= inner.len() * 8, "{}: {inside} of {}", sub.name, inner.len());
        }
    }

    /// The lift is the number of common users in relation to that by chance.
    #[test]
    fn related_topics_share_more_users_than_by_chance() {
        let segments = population(7);
        let topics = Population::new(demo(7)).interests.topics;
        let steady: Vec<_> = topics.iter().filter(|topic| topic.course != Course::Ended).collect();
        let mut lifts: HashMap<bool, Vec<f64>> = HashMap::new();
        for (index, one) in steady.iter().enumerate() {
            for other in &steady[index + 1..] {
                let [one_users, other_users] = [one, other].map(|topic| users(of(&segments, topic.name)));
                let common = one_users.intersection(&other_users).count();
                let chance = one_users.len() as f64 * other_users.len() as f64 / 5_000.0;
                lifts.entry(one.group == other.group).or_default().push(common as f64 / chance);
            }
        }
        let mean = |is_related| lifts[&is_related].iter().sum::<f64>() / lifts[&is_related].len() as f64;
        assert!(mean(true) > 2.0 && mean(false) < 0.9, "{} and {}", mean(true), mean(false));
    }

    #[test]
    fn visitors_have_the_last_visit_of_each_user_to_any_segment() {
        let segments = population(7);
        let (visitors, others) = segments.split_last().unwrap();
        let mut last_visits = HashMap::new();
        for (user, last_seen) in others.iter().flat_map(|segment| &segment.members) {
            let latest = last_visits.entry(user.as_str()).or_insert(*last_seen);
            *latest = (*latest).max(*last_seen);
        }
        assert_eq!((visitors.name.as_str(), visitors.members.len()), ("visitors", 5_000));
        let members = visitors.members.iter().map(|(user, last_seen)| (user.as_str(), *last_seen));
        assert_eq!(members.collect::<HashMap<_, _>>(), last_visits);
        let largest = |hour: usize| {
            others.iter().filter_map(|segment| segment.history.get(hour)).map(|it| it.count.count()).max()
        };
        assert!(visitors.history.iter().enumerate().all(|(hour, it)| Some(it.count.count()) >= largest(hour)));
    }

    #[test]
    fn one_segment_is_new_and_one_has_no_visits_for_days() {
        let segments = population(7);
        let (new, ended) = (of(&segments, "podcasts"), of(&segments, "radio"));
        assert!(new.members.iter().all(|(_, last_seen)| *last_seen > NOON - 4 * DAY));
        assert!(new.history[0].at > NOON - 4 * DAY && new.history[0].count.count() < new.members.len() as u64 / 10);
        assert!(ended.members.iter().all(|(_, last_seen)| *last_seen < NOON - 9 * DAY));
        let week_before = ended.history.iter().find(|sample| sample.at == NOON - 7 * DAY).unwrap().count.count();
        let now = ended.members.len() as u64;
        assert!(now * 10 < week_before * 7, "{week_before} a week before, {now} now");
    }
}
