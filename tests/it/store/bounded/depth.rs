//! Depths that fall, and their records.

use std::time::Duration;

use segment_estimator::domain::{Timestamp, Window};

use super::{BOUND, assert_near, bounded, depth, kept, number, record, users_from, wait_until_within_bound, window};
use crate::helpers::{Redis, segment};

const DAY: Duration = Duration::from_secs(86_400);

/// Returns the time from which a depth that falls at `now` is complete.
fn complete_since(now: Timestamp) -> Timestamp {
    now + Duration::from_secs(16)
}

#[tokio::test]
async fn depth_falls_when_few_members_are_left_and_counts_more_levels_a_window_later() {
    let redis = Redis::start();
    let (estimator, start) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10_000, start).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let deep = number(&depth(&redis, "sports"));

    // All but 2,000 users have left.
    let later = start + 7 * DAY;
    record(&estimator, "sports", 0..2_000, later).await;
    let pruned = start + window().duration();
    estimator.prune(pruned).await.unwrap();
    let falling = depth(&redis, "sports");
    assert!(falling.starts_with(&format!("{deep}>")), "{falling}");
    assert_near(estimator.estimate(&segment("sports"), pruned).await.unwrap(), 2_000);

    // The lower levels are written at once, and count over a window that begins when they are complete.
    let again = complete_since(pruned) + Duration::from_secs(1);
    record(&estimator, "sports", 0..400, again).await;
    assert_near(estimator.estimate(&segment("sports"), again).await.unwrap(), 2_000);
    let short = Window::parse("1s").unwrap();
    let recent =
        estimator.estimate_within(&segment("sports"), short, again + Duration::from_millis(500)).await.unwrap();
    assert!(kept(&redis, "sports").len() < 400, "the record keeps the higher depth");
    assert_near(recent, 400);

    let settled = complete_since(pruned) + window().duration();
    record(&estimator, "sports", 0..300, settled).await;
    estimator.prune(settled).await.unwrap();
    assert!(number(&depth(&redis, "sports")) < deep, "{}", depth(&redis, "sports"));
    let count = estimator.estimate(&segment("sports"), settled).await.unwrap();
    assert_near(count, 400);
}

#[tokio::test]
async fn emptied_segment_begins_at_depth_0_again() {
    let redis = Redis::start();
    let (estimator, start) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10_000, start).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let emptied = start + window().duration();
    estimator.prune(emptied).await.unwrap();
    assert!(depth(&redis, "sports").contains(">0@"), "{}", depth(&redis, "sports"));
    assert!(!redis.call::<bool>(&["EXISTS", "segments"]), "the name is dropped");

    let settled = complete_since(emptied) + window().duration();
    record(&estimator, "sports", 0..10, settled).await;
    estimator.prune(settled).await.unwrap();
    assert_eq!(depth(&redis, "sports"), "");
    assert_eq!(estimator.estimate(&segment("sports"), settled).await.unwrap(), 10);
    assert_eq!(kept(&redis, "sports").into_keys().collect::<Vec<_>>(), Vec::from_iter(users_from(0, 0..10)));
}

#[tokio::test]
async fn falling_depth_is_raised_if_many_users_arrive() {
    let redis = Redis::start();
    let (estimator, start) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10_000, start).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let emptied = start + window().duration();
    estimator.prune(emptied).await.unwrap();
    assert!(depth(&redis, "sports").contains(">0@"), "{}", depth(&redis, "sports"));

    let again = complete_since(emptied) + Duration::from_secs(1);
    record(&estimator, "sports", 0..3_000, again).await;
    crate::helpers::eventually("the falling depth is raised", async || !depth(&redis, "sports").contains(">0@")).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    assert_near(estimator.estimate(&segment("sports"), again).await.unwrap(), 3_000);
    let short = Window::parse("1s").unwrap();
    assert_near(estimator.estimate_within(&segment("sports"), short, again).await.unwrap(), 3_000);
}

#[tokio::test]
async fn fall_is_not_recorded_too_late() {
    let redis = Redis::start();
    let estimator = bounded(&redis, "1");
    // Of a process that was suspended for a minute after it had read the clock.
    let now = Timestamp::now() - Duration::from_secs(60);
    let start = now - window().duration();
    record(&estimator, "sports", 0..10_000, start).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let before = depth(&redis, "sports");
    estimator.prune(now).await.unwrap();
    assert_eq!(depth(&redis, "sports"), before);
}

#[tokio::test]
async fn foreign_depth_fails_its_segment_alone() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10, now).await;
    record(&estimator, "news", 0..10, now).await;
    redis.call::<()>(&["HSET", "depths", "news", "theirs"]);
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 10);
    let failed = estimator.estimate(&segment("news"), now).await.unwrap_err();
    assert!(failed.to_string().contains("`depths` holds a value that this service didn't write"), "{failed}");
    estimator.prune(now).await.unwrap();
    assert_eq!(depth(&redis, "news"), "theirs");
}
