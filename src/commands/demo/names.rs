//! The segments of a generated population: topics, and sub-segments of them.

use rand::seq::SliceRandom as _;

/// A topic that users are interested in, and that is a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    /// Users who are interested in a topic are often interested in others of its group.
    pub(super) group: usize,
    pub(super) course: Course,
}

/// The activity of a segment over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Visits at all times.
    Steady,
    /// The first visit was a few days ago.
    New,
    /// The last visit was some days ago.
    Ended,
}

/// A segment whose users are mostly among those of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubSegment {
    pub(super) name: String,
    /// The index of the topic.
    pub(super) topic: usize,
}

/// Topics by group.
const GROUPS: [&str; 5] = [
    "sports fitness outdoors health",
    "music movies games books art",
    "food home garden pets family",
    "finance cars technology science jobs education",
    "news travel fashion beauty weather",
];
/// The new topic and the one that has ended, with their groups and positions.
const SPECIAL: [(usize, Topic); 2] = [
    (4, Topic { name: "podcasts", group: 1, course: Course::New }),
    (7, Topic { name: "radio", group: 1, course: Course::Ended }),
];
const KINDS: &str = "fans newsletter video deals mobile local premium weekend returning new search";

/// Returns all topics, the most popular first.
pub(super) fn topics(random: &mut impl rand::Rng) -> Vec<Topic> {
    let names = GROUPS.iter().enumerate().flat_map(|(group, names)| names.split(' ').map(move |name| (group, name)));
    let mut topics: Vec<_> = names.map(|(group, name)| Topic { name, group, course: Course::Steady }).collect();
    topics.shuffle(random);
    for (position, topic) in SPECIAL {
        topics.insert(position, topic);
    }
    topics
}

/// Returns `count` sub-segments of `topics` with different names, the largest first.
pub(super) fn sub_segments(topics: &[Topic], count: usize, random: &mut impl rand::Rng) -> Vec<SubSegment> {
    let steady = topics.iter().enumerate().filter(|(_, topic)| topic.course == Course::Steady);
    let kinds = steady.flat_map(|(topic, Topic { name, .. })| {
        KINDS.split(' ').map(move |kind| SubSegment { name: format!("{name}-{kind}"), topic })
    });
    let mut all: Vec<_> = kinds.collect();
    all.shuffle(random);
    let unnumbered = all.len();
    for index in 0..count.saturating_sub(unnumbered) {
        let SubSegment { name, topic } = &all[index % unnumbered];
        all.push(SubSegment { name: format!("{name}-{}", index / unnumbered + 2), topic: *topic });
    }
    all.truncate(count);
    all
}
