//! Random visits, late visits, deletions, clock steps, prunes, raises and falls, compared with a model member by
//! member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rstest::rstest;
use segment_estimator::domain::{Level, Timestamp, UserId};
use segment_estimator::estimator::Estimator;

use super::{BOUND, bounded, depths, kept, number, record, wait_until_within_bound, window};
use crate::helpers::{Redis, segment};

const SEGMENTS: [&str; 3] = ["sports", "news", "{x}:y"];
const DAY: i64 = 86_400_000;
/// Longer than between two reads of the depths.
const KNOWLEDGE: Duration = Duration::from_millis(1_500);

/// The last visits of all users.
#[derive(Default)]
struct Model {
    seen: BTreeMap<(usize, u32), Timestamp>,
}

impl Model {
    fn record(&mut self, segment: usize, users: &[u32], seen_at: Timestamp) {
        for user in users {
            let last = self.seen.entry((segment, *user)).or_insert(seen_at);
            *last = seen_at.max(*last);
        }
    }

    /// Returns the users of a segment that were seen after `cutoff`.
    fn after(&self, segment: usize, cutoff: Timestamp) -> BTreeMap<String, Timestamp> {
        let seen = self.seen.iter().filter(|((of, _), seen_at)| *of == segment && **seen_at > cutoff);
        seen.map(|((_, user), seen_at)| (format!("u{user}"), *seen_at)).collect()
    }
}

/// Returns the time from which the recorded depths are complete, for each partition that falls.
fn falls_of(redis: &Redis, name: &str) -> Vec<(u8, i64)> {
    let fall = |depth: &String| {
        let (to, since) = depth.split_once('>')?.1.trim_end_matches('!').split_once('@')?;
        Some((to.parse().unwrap(), since.parse::<i64>().unwrap() * 1_000))
    };
    depths(redis, name).values().filter_map(fall).collect()
}

/// Compares the members of all segments that the depths keep, and the estimates.
async fn compare(estimators: &[Estimator], redis: &Redis, model: &Model, now: Timestamp, step: &str, far: &mut u32) {
    let cutoff = window().cutoff(now);
    for (at, name) in SEGMENTS.iter().enumerate() {
        let truth = model.after(at, cutoff);
        let found = kept(redis, name);
        let found: BTreeMap<_, _> = found.into_iter().filter(|(_, score)| *score > cutoff.as_score()).collect();
        let recorded = depths(redis, name);
        let (lowest, highest) =
            (recorded.values().map(|it| number(it)).min(), recorded.values().map(|it| number(it)).max());
        let (lowest, highest) = (lowest.unwrap_or_default(), highest.unwrap_or_default());
        for (user, seen_at) in &truth {
            if Level::of(user).number() >= highest {
                assert_eq!(
                    found.get(user),
                    Some(&seen_at.as_score()),
                    "{user} of {name} at depth {highest} after {step}"
                );
            }
        }
        for user in found.keys() {
            assert!(truth.contains_key(user), "{user} is no user of {name} after {step}");
            assert!(Level::of(user).number() >= lowest);
        }
        // A short window that begins after a fall counts the lower levels as well.
        let since = falls_of(redis, name).into_iter().map(|(_, since)| since).max();
        let mut cutoffs = vec![cutoff];
        cutoffs.extend(since.map(Timestamp::from_millis).filter(|since| *since > cutoff && *since < now));
        for cutoff in cutoffs {
            let users = model.after(at, cutoff).len() as u64;
            let length = Duration::from_millis((now.as_millis() - cutoff.as_millis()).unsigned_abs());
            let Ok(shorter) = segment_estimator::domain::Window::new(length) else { continue };
            for estimator in estimators {
                let estimate = estimator.estimate_within(&segment(name), shorter, now).await.unwrap();
                let difference = estimate.count().abs_diff(users) as f64;
                if estimate.is_exact() {
                    assert_eq!(estimate.count(), users, "{name} within {length:?} after {step}");
                } else {
                    // An estimate of nobody states no error. There may be a few users.
                    let deviation = estimate.variance().sqrt().max((users as f64 * 2_f64.powi(highest.into())).sqrt());
                    assert!(
                        difference <= 6.0 * deviation,
                        "{estimate} of {users} in {name} within {length:?} after {step}"
                    );
                    *far += u32::from(difference > 3.0 * deviation);
                }
            }
        }
    }
}

#[rstest]
#[case::one_partition("1", 1)]
#[case::eight_partitions("8", 2)]
#[tokio::test]
async fn sample_agrees_with_the_model_after_every_step(#[case] partitions: &str, #[case] seed: u64) {
    let redis = Redis::start();
    let estimators = [bounded(&redis, partitions), bounded(&redis, partitions)];
    let bound = (BOUND / partitions.parse::<u64>().unwrap()).max(64);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut model, mut now, mut far) = (Model::default(), Timestamp::now(), 0);
    let mut fallen = BTreeSet::new();
    for step in 0..120 {
        // What they know of the depths is of different age.
        let estimator = &estimators[random.random_range(0..2)];
        let at = random.random_range(0..SEGMENTS.len());
        let what = match random.random_range(0..19) {
            _ if step == 40 || step == 80 => {
                estimator.delete_segment(&segment(SEGMENTS[at]), false, now).await.unwrap();
                model.seen.retain(|(of, _), _| *of != at);
                format!("step {step}: {} is deleted", SEGMENTS[at])
            }
            0..10 => {
                let users = random.random_range(1..3_000_u32);
                let first = random.random_range(0..6_000);
                let late = if random.random_bool(0.3) { random.random_range(0..13 * DAY) } else { 0 };
                let seen_at = Timestamp::from_millis(now.as_millis() - late);
                let users: Vec<_> = (first..first + users).collect();
                record(estimator, SEGMENTS[at], users.iter().copied(), seen_at).await;
                model.record(at, &users, seen_at);
                wait_until_within_bound(&redis, SEGMENTS[at], bound).await;
                format!("step {step}: {} visits to {}", users.len(), SEGMENTS[at])
            }
            10..14 => {
                now = now + Duration::from_millis(random.random_range(1_000..4 * DAY as u64));
                format!("step {step}: clock")
            }
            14 => {
                // Longer than the delay of a fall.
                now = now + Duration::from_secs(20);
                format!("step {step}: twenty seconds")
            }
            15..18 => {
                estimator.prune(now).await.unwrap();
                model.seen.retain(|_, seen_at| *seen_at > window().cutoff(now));
                let before = fallen.len();
                for name in SEGMENTS {
                    fallen.extend(falls_of(&redis, name));
                }
                if fallen.len() > before {
                    // The clock of this test is faster than that of the reads of the depths.
                    tokio::time::sleep(KNOWLEDGE).await;
                }
                format!("step {step}: prune")
            }
            _ => {
                let user = random.random_range(0..6_000_u32);
                estimator.delete_user(&UserId::parse(format!("u{user}")).unwrap()).await.unwrap();
                model.seen.retain(|(_, of), _| *of != user);
                format!("step {step}: u{user} is deleted")
            }
        };
        compare(&estimators, &redis, &model, now, &what, &mut far).await;
    }
    assert!(!fallen.is_empty(), "no depth has fallen");
    assert!(far < 20, "{far} estimates are more than three standard errors away");
}
