//! Counts that are asked for together share a round trip, and those of the same segment in the same millisecond an answer.

use std::collections::HashMap;

use super::group_commit::Rounds;
use crate::domain::{SegmentName, Timestamp};
use crate::store::{self, Store};

/// Counts the members of segments, many to a round trip. Cheap to clone; clones share the round trips.
#[derive(Debug, Clone)]
pub struct Counter {
    rounds: Rounds<Question, u64>,
    /// How many may wait.
    most: usize,
}

/// A segment, and the time that its members must have been seen after.
type Question = (SegmentName<'static>, Timestamp);

impl Counter {
    /// A counter of what is in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let metrics = store.metrics().count_rounds.clone();
        Self { most: store.limits().waiting, rounds: Rounds::new(store, metrics, count) }
    }

    /// How many counts wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rounds.waiting()
    }

    /// How many members `segment` has that were seen after `cutoff`.
    ///
    /// # Errors
    ///
    /// When Redis didn't answer, or too many wait already.
    pub async fn count(&self, segment: SegmentName<'static>, cutoff: Timestamp) -> Result<u64, store::Error> {
        self.rounds.ask((segment, cutoff), self.most).await
    }
}

/// One round trip: an answer for each of `questions`. Those who ask the same may share an answer since Redis is asked
/// after they came: what was acknowledged before, all of them see.
async fn count(store: Store, questions: Vec<Question>) -> Vec<Result<u64, store::Error>> {
    let mut distinct = Vec::with_capacity(questions.len());
    let mut places = HashMap::with_capacity(questions.len());
    let place_of = |question| {
        *places.entry(question).or_insert_with(|| {
            distinct.push(question);
            distinct.len() - 1
        })
    };
    let places: Vec<usize> = questions.iter().map(place_of).collect();
    match store.counts(&distinct).await {
        Ok(answers) => places.into_iter().map(|place| answers[place].clone()).collect(),
        Err(error) => vec![Err(error); questions.len()],
    }
}
