//! Counts and writes while depths are raised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rstest::rstest;
use segment_estimator::domain::Timestamp;

use super::{bounded, number, record};
use crate::helpers::{Redis, segment};

/// A count that mixed the members of one depth with another depth would be twice or half of the users.
#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_is_near_the_users_while_depths_are_raised(#[case] partitions: &str) {
    const USERS: u32 = 120_000;
    let redis = Redis::start();
    let (writer, reader, now) = (bounded(&redis, partitions), bounded(&redis, partitions), Timestamp::now());
    let (sent, acknowledged) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let writing = {
        let (sent, acknowledged) = (Arc::clone(&sent), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for first in (0..USERS).step_by(500) {
                sent.store(first + 500, Ordering::Relaxed);
                record(&writer, "sports", first..first + 500, now).await;
                acknowledged.store(first + 500, Ordering::Relaxed);
            }
        })
    };
    let mut answers = 0;
    while !writing.is_finished() {
        let fewest = u64::from(acknowledged.load(Ordering::Relaxed));
        let estimate = reader.estimate(&segment("sports"), now).await.unwrap();
        let most = u64::from(sent.load(Ordering::Relaxed));
        let error = 6.0 * estimate.variance().sqrt();
        let count = estimate.count() as f64;
        assert!(
            fewest as f64 - error <= count && count <= most as f64 + error,
            "{estimate}, but at least {fewest} users were acknowledged and at most {most} were sent"
        );
        answers += 1;
    }
    writing.await.unwrap();
    assert!(answers > 20, "{answers}");
    let deepest = super::depths(&redis, "sports").values().map(|depth| number(depth)).max().unwrap();
    assert!(deepest >= 5, "{deepest}");
}

/// Both instances learn of each other's raises a second later at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_write_one_sample() {
    const USERS: u32 = 60_000;
    let (redis, now) = (Redis::start(), Timestamp::now());
    let instances = [bounded(&redis, "1"), bounded(&redis, "1")];
    let writing = instances.clone().into_iter().zip(0..).map(|(instance, half)| {
        tokio::spawn(async move {
            for first in (half * USERS / 2..(half + 1) * USERS / 2).step_by(500) {
                record(&instance, "sports", first..first + 500, now).await;
            }
        })
    });
    for writing in writing.collect::<Vec<_>>() {
        writing.await.unwrap();
    }
    super::wait_until_within_bound(&redis, "sports", super::BOUND).await;
    let depth = number(&super::depth(&redis, "sports"));
    let kept: Vec<_> = super::kept(&redis, "sports").into_keys().collect();
    assert_eq!(kept, Vec::from_iter(super::users_from(depth, 0..USERS)));
    for instance in instances {
        super::assert_near(instance.estimate(&segment("sports"), now).await.unwrap(), USERS.into());
    }
}
