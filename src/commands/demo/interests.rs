//! The interests of generated users, which decide who is in which segment.

use std::collections::HashSet;

use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{RngExt as _, SeedableRng as _};

use super::names::{SubSegment, Topic, sub_segments, topics};
use super::parameters::Demo;

/// Who is interested in what.
#[derive(Debug)]
pub(super) struct Interests {
    pub(super) topics: Vec<Topic>,
    pub(super) sub_segments: Vec<SubSegment>,
    /// The topics of each user: two or three.
    users: Vec<[u8; 3]>,
}

impl Interests {
    /// Stands for no third interest.
    const NONE: u8 = u8::MAX;
    /// The probability of a third interest.
    const THIRD: f64 = 0.3;
    /// The probability that the next interest is of the group of the first one.
    const RELATED: f64 = 0.6;
    /// The share of the users of a sub-segment who are in its topic.
    const INSIDE: f64 = 0.9;

    /// Draws the interests of the users of `demo`.
    pub(super) fn new(demo: &Demo) -> Self {
        let random = &mut StdRng::seed_from_u64(demo.seed);
        let topics = topics(random);
        let sub_segments = sub_segments(&topics, demo.segments.saturating_sub(topics.len()), random);
        // Popularity falls with the rank, so that the most popular topic has nearly a fifth of the users.
        let weights: Vec<_> = (1..=topics.len()).map(|rank| (rank as f64).powf(-0.45)).collect();
        let any = WeightedIndex::new(&weights).expect("there are topics");
        let groups = 1 + topics.iter().map(|topic| topic.group).max().unwrap_or_default();
        let related: Vec<_> = (0..groups)
            .map(|group| {
                let weight = |(topic, weight): (&Topic, &f64)| if topic.group == group { *weight } else { 0.0 };
                WeightedIndex::new(topics.iter().zip(&weights).map(weight)).expect("a group has topics")
            })
            .collect();
        let users = (0..demo.users).map(|_| {
            let first = any.sample(random);
            let mut interests = [first as u8, Self::NONE, Self::NONE];
            let number = if random.random_bool(Self::THIRD) { 3 } else { 2 };
            for place in 1..number {
                let among = if random.random_bool(Self::RELATED) { &related[topics[first].group] } else { &any };
                interests[place] = loop {
                    let next = among.sample(random) as u8;
                    if !interests.contains(&next) {
                        break next;
                    }
                };
            }
            interests
        });
        let users = users.collect();
        Self { topics, sub_segments, users }
    }

    /// Returns the users who are interested in the topic at `index`. There is at least one.
    pub(super) fn users_of(&self, index: usize) -> Vec<usize> {
        let interested = self.users.iter().enumerate().filter(|(_, topics)| topics.contains(&(index as u8)));
        let mut users: Vec<_> = interested.map(|(user, _)| user).collect();
        if users.is_empty() {
            users.push(index % self.users.len());
        }
        users
    }

    /// Returns the number of users who are interested in each topic. It is at least one.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.topics.len()];
        for topic in self.users.iter().flatten().filter(|topic| **topic != Self::NONE) {
            sizes[usize::from(*topic)] += 1;
        }
        sizes.into_iter().map(|size| size.max(1)).collect()
    }

    /// Returns the number of users of the sub-segment at `index`. It falls with the rank among all segments, by Zipf's
    /// law.
    pub(super) fn size_of_sub_segment(&self, index: usize) -> usize {
        let rank = self.topics.len() + index + 1;
        (self.users.len() as f64 * 0.2 * (rank as f64).powf(-0.9)).ceil() as usize
    }

    /// Draws the users of the sub-segment at `index`: positions in `parent`, the users of its topic, and others.
    pub(super) fn draw_sub_segment(
        &self,
        index: usize,
        parent: &[usize],
        random: &mut StdRng,
    ) -> (Vec<usize>, Vec<usize>) {
        let size = self.size_of_sub_segment(index);
        let inside = ((size as f64 * Self::INSIDE).round() as usize).min(parent.len());
        let inside = sample(random, parent.len(), inside).into_vec();
        let mut users: HashSet<_> = inside.iter().map(|position| parent[*position]).collect();
        let mut others = Vec::with_capacity(size - inside.len());
        while users.len() < size {
            let user = random.random_range(0..self.users.len());
            if users.insert(user) {
                others.push(user);
            }
        }
        (inside, others)
    }
}
