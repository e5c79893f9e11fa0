//! The deletion of a segment that keeps a sample.

use std::time::Duration;

use rstest::rstest;
use segment_estimator::domain::{Level, Timestamp, UserId};

use super::{BOUND, assert_near, bounded, depth, depths, kept, number, record, users_from, wait_until_within_bound};
use crate::helpers::{Redis, eventually, segment, visit};

#[rstest]
#[case::one_partition("1", BOUND)]
#[case::eight_partitions("8", BOUND / 8)]
#[case::sixty_four_partitions("64", 64)]
#[tokio::test]
async fn delete_counts_as_an_estimate_does_and_begins_at_depth_0(#[case] partitions: &str, #[case] bound: u64) {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, partitions), Timestamp::now());
    let other = bounded(&redis, partitions);
    record(&estimator, "sports", 0..20_000, now).await;
    record(&estimator, "news", 0..20_000, now).await;
    wait_until_within_bound(&redis, "sports", bound).await;
    let before = estimator.estimate(&segment("sports"), now).await.unwrap();
    assert_near(before, 20_000);

    // Another instance counts while all depths change at once, and so may a second deletion.
    let counting = async {
        let mut counts = Vec::new();
        while !depths(&redis, "sports").values().all(String::is_empty) {
            counts.push(other.estimate(&segment("sports"), now).await.unwrap());
            tokio::task::yield_now().await;
        }
        counts
    };
    let [sports, news] = ["sports", "news"].map(segment);
    let delete = || estimator.delete_segment(&sports, false, now);
    let again = other.delete_segment(&news, false, now);
    let (deleted, twice, counts, _) = tokio::join!(delete(), delete(), counting, again);
    let (deleted, twice) = (deleted.unwrap(), twice.unwrap());
    assert!(deleted.is_known || twice.is_known);
    assert_near(deleted.count + twice.count, 20_000);
    assert_near(counts[0], 20_000);
    record(&estimator, "news", 0..20_000, now).await;
    wait_until_within_bound(&redis, "news", bound).await;
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 0);
    assert!(depths(&redis, "sports").values().all(String::is_empty));
    assert!(depths(&redis, "news").values().any(|depth| !depth.is_empty()));

    record(&estimator, "sports", 0..100, now).await;
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 100);
    assert_eq!(kept(&redis, "sports").into_keys().collect::<Vec<_>>(), Vec::from_iter(users_from(0, 0..100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_instance_drops_a_visit_after_a_deletion() {
    let redis = Redis::start();
    let (estimator, other, now) = (bounded(&redis, "1"), bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..20_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    // The other instance knows the depth.
    let low = |user: &u32| Level::of(&format!("u{user}")).number() == 0;
    let dropped: Vec<_> = (30_000..).filter(low).take(500).collect();
    let key = "segment@0:sports";
    eventually("the other instance drops visits", async || {
        redis.call::<()>(&["UNLINK", key]);
        other.record(visit(&format!("u{}", dropped[0]), "sports", now), now).await.unwrap();
        !redis.call::<bool>(&["EXISTS", key])
    })
    .await;

    estimator.delete_segment(&segment("sports"), false, now).await.unwrap();
    record(&other, "sports", dropped.iter().copied(), now).await;
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 500);
}

#[tokio::test]
async fn deletion_ends_while_visits_arrive() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..20_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let deletion = {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.delete_segment(&segment("sports"), false, now).await })
    };
    let mut first = 100_000;
    while !deletion.is_finished() {
        record(&estimator, "sports", first..first + 1_000, now).await;
        first += 1_000;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(deletion.await.unwrap().unwrap().is_known);
}

#[tokio::test]
async fn deletion_that_is_broken_off_leaves_a_depth_that_falls() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..20_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let before = estimator.estimate(&segment("sports"), now).await.unwrap();
    let deletion = {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.delete_segment(&segment("sports"), false, now).await })
    };
    eventually("the segment is marked", async || depth(&redis, "sports").ends_with('!')).await;
    deletion.abort();
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), before);

    // Once the mark has expired, the depth may be raised again. The clock of Redis decides, and a test needn't wait for
    // it.
    let expired = now.as_millis() / 1_000 - 1;
    redis.call::<()>(&["HSET", "depths", "sports", &format!("{}>0@{expired}!", number(&depth(&redis, "sports")))]);
    record(&estimator, "sports", 0..20_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    assert!(!depth(&redis, "sports").ends_with('!'));
    assert_near(estimator.estimate(&segment("sports"), now).await.unwrap(), 20_000);
}

#[tokio::test]
async fn delete_of_a_user_removes_the_member_of_the_right_level() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "8"), Timestamp::now());
    record(&estimator, "sports", 0..20_000, now).await;
    record(&estimator, "news", 0..10, now).await;
    wait_until_within_bound(&redis, "sports", BOUND / 8).await;
    let user = kept(&redis, "sports").into_keys().find(|user| users_from(0, 0..10).contains(user));
    // One of the first ten users may not be in the sample.
    let user = user.unwrap_or_else(|| "u7".to_owned());
    let in_sample = u64::from(kept(&redis, "sports").contains_key(&user));
    let removed = estimator.delete_user(&UserId::parse(user.clone()).unwrap()).await.unwrap();
    assert_eq!(removed, 1 + in_sample);
    assert_eq!(estimator.estimate(&segment("news"), now).await.unwrap(), 9);
    assert!(!kept(&redis, "sports").contains_key(&user));
}
