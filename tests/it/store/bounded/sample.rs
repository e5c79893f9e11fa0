//! What a bounded segment keeps.

use futures_util::FutureExt as _;
use rstest::rstest;
use segment_estimator::domain::{Level, Segments, Timestamp, UserId, Visits};
use segment_estimator::estimator::Recorded;

use super::{
    BOUND, assert_near, bounded, calls, depth, depths, kept, number, record, users_from, wait_until_within_bound,
};
use crate::helpers::{Redis, eventually, segment, visit};

#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[tokio::test]
async fn count_is_exact_while_a_segment_has_few_users(#[case] partitions: &str) {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, partitions), Timestamp::now());
    record(&estimator, "sports", 0..500, now).await;
    record(&estimator, "sports", 0..500, now).await;
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 500);
    assert_eq!(
        kept(&redis, "sports").into_keys().collect::<Vec<_>>(),
        users_from(0, 0..500).into_iter().collect::<Vec<_>>()
    );
    assert!(depths(&redis, "sports").values().all(String::is_empty));
}

#[rstest]
#[case::one_partition("1", BOUND)]
#[case::eight_partitions("8", BOUND / 8)]
#[tokio::test]
async fn segment_keeps_all_users_from_its_depth_on_and_no_others(#[case] partitions: &str, #[case] bound: u64) {
    const USERS: u32 = 30_000;
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, partitions), Timestamp::now());
    record(&estimator, "sports", 0..USERS, now).await;
    record(&estimator, "news", 0..100, now).await;
    wait_until_within_bound(&redis, "sports", bound).await;

    let deepest = depths(&redis, "sports").values().map(|depth| number(depth)).max().unwrap();
    let members = kept(&redis, "sports");
    // Each partition may have a depth of its own.
    let kept_everywhere: Vec<_> = users_from(deepest, 0..USERS).into_iter().collect();
    let found: Vec<_> = members.into_keys().filter(|user| Level::of(user).number() >= deepest).collect();
    assert_eq!(found, kept_everywhere);
    let estimate = estimator.estimate(&segment("sports"), now).await.unwrap();
    assert!(!estimate.is_exact());
    assert_near(estimate, USERS.into());
    assert_eq!(estimator.estimate(&segment("news"), now).await.unwrap(), 100);
}

#[tokio::test]
async fn raise_deletes_the_levels_that_are_not_kept() {
    let redis = Redis::start();
    let estimator = bounded(&redis, "1");
    record(&estimator, "sports", 0..10_000, Timestamp::now()).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let depth = number(&depth(&redis, "sports"));
    assert!((3..=5).contains(&depth), "{depth}");
    // A level that is no longer written stays deleted.
    record(&estimator, "sports", 0..10_000, Timestamp::now()).await;
    for level in 0..depth {
        assert!(!redis.call::<bool>(&["EXISTS", &format!("segment@{level}:sports")]), "level {level}");
    }
}

#[tokio::test]
async fn visit_outside_the_sample_costs_redis_no_command() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let depth = number(&depth(&redis, "sports"));
    let dropped = (20_000..).map(|user| format!("u{user}")).filter(|user| Level::of(user).number() < depth);
    let dropped: Vec<_> = dropped.take(200).collect();
    let mut connection = redis.connection();
    // The depths are read every second.
    let sent = |before: &std::collections::BTreeMap<String, u64>, after: std::collections::BTreeMap<String, u64>| {
        let background = ["hgetall", "zrem", "get"];
        let new = after.into_iter().filter(|(name, calls)| before.get(name).is_none_or(|before| before < calls));
        new.map(|(name, _)| name).filter(|name| !background.contains(&name.as_str())).collect::<Vec<_>>()
    };
    // The last check of the segment may still run, and what it found may not be known.
    let deadline = std::time::Instant::now() + crate::helpers::TIMEOUT;
    loop {
        let before = calls(&mut connection);
        for user in &dropped {
            estimator.record(visit(user, "sports", now), now).await.unwrap();
        }
        let sent = sent(&before, calls(&mut connection));
        if sent.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{sent:?}");
    }

    let before = calls(&mut connection);
    let written = (20_000..).map(|user| format!("u{user}")).find(|user| Level::of(user).number() >= depth).unwrap();
    estimator.record(visit(&written, "sports", now), now).await.unwrap();
    // It may be the one that begins a check.
    assert!(sent(&before, calls(&mut connection)).contains(&"zadd".to_owned()));
}

/// It waits neither for Redis nor for other visits.
#[tokio::test]
async fn visit_outside_the_sample_is_acknowledged_at_once() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "8"), Timestamp::now());
    for name in ["sports", "news"] {
        record(&estimator, name, 0..20_000, now).await;
    }
    let of_level = |level: u8| (30_000..).map(|user| format!("u{user}")).find(|user| Level::of(user).number() == level);
    let (lowest, highest) = (of_level(0).unwrap(), of_level(12).unwrap());
    eventually("the depths are known", async || {
        estimator.record(visit(&lowest, "sports", now), now).now_or_never().is_some_and(|recorded| {
            assert_eq!(recorded.unwrap(), Recorded::Accepted);
            true
        })
    })
    .await;
    eventually("the depths of all segments are known", async || {
        let visits = Visits {
            user_id: UserId::parse(lowest.as_str()).unwrap(),
            segments: Segments::List(["sports", "news"].map(segment).into()),
            seen_at: now,
        };
        estimator.record_all(&visits, now).now_or_never().is_some_and(|recorded| {
            assert!(recorded.len() == 2 && recorded.iter().all(|recorded| matches!(recorded, Ok(Recorded::Accepted))));
            true
        })
    })
    .await;
    assert!(estimator.record(visit(&highest, "sports", now), now).now_or_never().is_none(), "it is written");
}

#[tokio::test]
async fn instance_that_does_not_know_a_depth_writes_levels_that_nobody_counts() {
    let redis = Redis::start();
    let (estimator, now) = (bounded(&redis, "1"), Timestamp::now());
    record(&estimator, "sports", 0..10_000, now).await;
    wait_until_within_bound(&redis, "sports", BOUND).await;
    let (before, kept_before) = (estimator.estimate(&segment("sports"), now).await.unwrap(), kept(&redis, "sports"));
    // It writes before its first read of the depths.
    let late = bounded(&redis, "1");
    late.record(visit("u3", "sports", now), now).await.unwrap();
    let low = format!("segment@{}:sports", Level::of("u3").number());
    assert!(Level::of("u3").number() < number(&depth(&redis, "sports")));
    assert!(redis.call::<bool>(&["EXISTS", &low]));
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), before);
    assert_eq!(late.estimate(&segment("sports"), now).await.unwrap(), before);

    late.prune(now).await.unwrap();
    assert!(!redis.call::<bool>(&["EXISTS", &low]));
    assert_eq!(kept(&redis, "sports"), kept_before);
    // By now it knows the depth.
    eventually("the depth is known", async || {
        late.record(visit("u3", "sports", now), now).await.unwrap();
        let is_written: bool = redis.call(&["EXISTS", &low]);
        redis.call::<()>(&["UNLINK", &low]);
        !is_written
    })
    .await;
}
