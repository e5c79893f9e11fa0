//! Users and segments that are deleted while a data set moves to samples.

use rstest::rstest;
use segment_estimator::domain::{Level, UserId};
use segment_estimator::store::{KeySet, Phase, Resharding};

use super::{estimate, fill, fill_until_sampled, members, record, says};
use crate::helpers::{Redis, segment};

/// The new keys keep no user of a low level in a large segment, and must not wait for them.
#[rstest]
#[case::from_all_members("plain")]
#[case::from_larger_samples("plain@2048")]
#[tokio::test]
async fn repartition_completes_although_users_and_segments_were_deleted(#[case] from: &str) {
    let redis = Redis::start();
    record(&redis, from);
    let estimator = redis.estimator("14d");
    if from == "plain" {
        fill(&estimator, "sports", 0..6_000).await;
    } else {
        fill_until_sampled(&redis, "sports", 0..6_000, 2_048).await;
    }
    fill(&estimator, "news", 0..100).await;
    fill(&estimator, "brief", 0..6_000).await;
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let to = KeySet::try_from("p1@1024".to_owned()).unwrap();
    let backfill = Some(Resharding { to, phase: Phase::Backfill });
    store.change_layout(&before, before.keys(), backfill).await.unwrap();

    let low = |user: &String| Level::of(user).number() == 0;
    let users: Vec<_> = (0..100).map(|user| format!("u{user}")).filter(low).take(3).collect();
    let [removed, deleted, returned] = users.try_into().unwrap();
    let user = |id: &str| UserId::parse(id.to_owned()).unwrap();
    assert!(estimator.remove_user(&user(&removed), &segment("news"), None).await.unwrap());
    estimator.delete_user(&user(&deleted)).await.unwrap();
    estimator.delete_user(&user(&returned)).await.unwrap();
    let now = segment_estimator::domain::Timestamp::now();
    for name in ["sports", "news"] {
        estimator.record(crate::helpers::visit(&returned, name, now), now).await.unwrap();
    }
    assert!(estimator.delete_segment(&segment("brief"), false, now).await.unwrap().is_known);
    fill(&estimator, "brief", 0..10).await;

    says(&redis, &["repartition", "--yes", "--max-members", "1024"]);
    let news = members(&redis, "news");
    assert_eq!((news.len(), news.contains_key(&removed), news.contains_key(&deleted)), (98, false, false));
    assert_eq!(estimate(&redis, "brief").await, 10);
    assert_eq!(members(&redis, "brief").len(), 10);
    let sports = estimate(&redis, "sports").await;
    assert!(sports.count().abs_diff(5_999) < 900, "{sports}");
}
