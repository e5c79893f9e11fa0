//! Random visits, clock steps and prunes, compared with a model in memory after every step.

use std::collections::HashMap;

use proptest::prelude::*;
use rstest::rstest;
use segment_estimator::domain::{Timestamp, UserId, Visit, Window};
use segment_estimator::estimator::{Estimator, Recorded};
use segment_estimator::store::Partitions;
use tokio::runtime::Runtime;

use crate::helpers::{NOON, Redis, segment};

const WINDOW_MILLIS: i64 = 10_000;
const SEGMENTS: [&str; 3] = ["sports", "news", "{x}:y"];

#[derive(Debug, Clone)]
enum Step {
    /// A visit that was seen `age` milliseconds before now; after now if negative.
    Visit {
        user: u8,
        segment: usize,
        age: i64,
    },
    /// The clock advances, or goes back as when it is corrected.
    Clock {
        millis: i64,
    },
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    // Most ages are close to the end of the window, where errors are likely.
    let age = prop_oneof![Just(0), -2_000..2_000_i64, 0..2 * WINDOW_MILLIS, WINDOW_MILLIS - 2..=WINDOW_MILLIS + 2,];
    prop_oneof![
        6 => (0..6_u8, 0..SEGMENTS.len(), age).prop_map(|(user, segment, age)| Step::Visit { user, segment, age }),
        3 => prop_oneof![0..WINDOW_MILLIS, 0..3_i64, -500..0_i64].prop_map(|millis| Step::Clock { millis }),
        1 => Just(Step::Prune),
    ]
}

/// The expected behavior in its simplest form.
#[derive(Default)]
struct Model {
    last_seen: HashMap<(usize, u8), i64>,
}

impl Model {
    fn record(&mut self, segment: usize, user: u8, seen_at: i64, now: i64) -> Recorded {
        if seen_at <= now - WINDOW_MILLIS {
            return Recorded::Expired;
        }
        let last_seen = self.last_seen.entry((segment, user)).or_insert(seen_at);
        *last_seen = seen_at.max(*last_seen);
        Recorded::Accepted
    }

    fn prune(&mut self, now: i64) {
        self.last_seen.retain(|_, seen_at| *seen_at > now - WINDOW_MILLIS);
    }

    fn count(&self, segment: usize, window: i64, now: i64) -> u64 {
        let members = self.last_seen.iter().filter(|((of, _), _)| *of == segment);
        members.filter(|(_, seen_at)| **seen_at > now - window).count() as u64
    }
}

async fn replay(estimator: &Estimator, redis: &Redis, steps: &[Step]) {
    let mut model = Model::default();
    let mut now = NOON.as_millis();
    for step in steps {
        match *step {
            Step::Visit { user, segment: at, age } => {
                let user_id = UserId::parse(format!("u{user}")).unwrap();
                let seen_at = Timestamp::from_millis(now - age);
                let here = Timestamp::from_millis(now);
                let visit = Visit::new(user_id, segment(SEGMENTS[at]), Some(seen_at), here).unwrap();
                let recorded = estimator.record(visit, here).await.unwrap();
                assert_eq!(recorded, model.record(at, user, (now - age).min(now), now), "{step:?}");
            }
            Step::Clock { millis } => now += millis,
            Step::Prune => {
                estimator.prune(Timestamp::from_millis(now)).await.unwrap();
                model.prune(now);
                let index = index(redis);
                for (at, name) in SEGMENTS.iter().enumerate() {
                    let is_empty = !model.last_seen.keys().any(|(of, _)| *of == at);
                    assert_eq!(index.iter().any(|indexed| indexed == name), !is_empty, "{name} in {index:?}");
                }
            }
        }
        for (at, name) in SEGMENTS.iter().enumerate() {
            let here = Timestamp::from_millis(now);
            let count = estimator.estimate(&segment(name), here).await.unwrap();
            assert_eq!(count, model.count(at, WINDOW_MILLIS, now), "{name} after {step:?}");
            let shorter = Window::parse("3s").unwrap();
            let count = estimator.estimate_within(&segment(name), shorter, here).await.unwrap();
            assert_eq!(count, model.count(at, 3_000, now), "{name} within 3 s after {step:?}");
        }
    }
}

/// Returns the names in the indexes of all partitions.
fn index(redis: &Redis) -> Vec<String> {
    let indexes: Vec<String> = redis.call(&["KEYS", "*segments"]);
    indexes.iter().flat_map(|index| redis.call::<Vec<String>>(&["ZRANGE", index, "0", "-1"])).collect()
}

/// Returns a runtime for properties, and an estimator with a window of 10 s.
pub(super) fn runtime_and_estimator(redis: &Redis, partitions: &str) -> (Runtime, Estimator) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let estimator = {
        let _guard = runtime.enter();
        let partitions = Partitions::parse(partitions).unwrap();
        Estimator::new(redis.store().with_partitions(Some(partitions)), Window::parse("10s").unwrap())
    };
    (runtime, estimator)
}

/// There are six users, so that some of eight partitions are empty.
#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
fn count_agrees_with_the_model_after_every_step(#[case] partitions: &str) {
    let redis = Redis::start();
    let (runtime, estimator) = runtime_and_estimator(&redis, partitions);
    proptest!(ProptestConfig::with_cases(75), |(steps in prop::collection::vec(step(), 1..60))| {
        redis.call::<()>(&["FLUSHALL"]);
        runtime.block_on(replay(&estimator, &redis, &steps));
    });
}
