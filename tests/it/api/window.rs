//! The window to the millisecond, with a clock of the test.

use segment_estimator::domain::Window;
use segment_estimator::estimator::{Error, Recorded};

use crate::helpers::{NOON, Redis, noon_plus, segment, visit};

const TWO_WEEKS: i64 = 14 * 24 * 60 * 60 * 1000;

#[tokio::test]
async fn estimate_counts_a_user_until_the_last_millisecond_of_the_window() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    estimator.record(visit("u104010", "sports", NOON), NOON).await.unwrap();

    for (later, expected) in [(0, 1), (1, 1), (TWO_WEEKS - 1, 1), (TWO_WEEKS, 0), (TWO_WEEKS + 1, 0)] {
        let count = estimator.estimate(&segment("sports"), noon_plus(later)).await.unwrap();
        assert_eq!(count, expected, "{later} ms after the visit");
    }
}

#[tokio::test]
async fn record_expires_a_visit_at_the_edge_of_the_window() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    let at_the_edge = visit("late", "sports", noon_plus(-TWO_WEEKS));
    let inside = visit("in time", "sports", noon_plus(-TWO_WEEKS + 1));

    assert_eq!(estimator.record(at_the_edge, NOON).await.unwrap(), Recorded::Expired);
    assert_eq!(estimator.record(inside, NOON).await.unwrap(), Recorded::Accepted);
    assert_eq!(estimator.estimate(&segment("sports"), NOON).await.unwrap(), 1);
    assert_eq!(estimator.estimate(&segment("sports"), noon_plus(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn record_restarts_the_window_of_its_segment_only() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    for name in ["sports", "news"] {
        estimator.record(visit("u104010", name, NOON), NOON).await.unwrap();
    }
    let a_week_later = noon_plus(TWO_WEEKS / 2);
    estimator.record(visit("u104010", "sports", a_week_later), a_week_later).await.unwrap();

    let at_the_end = noon_plus(TWO_WEEKS);
    assert_eq!(estimator.estimate(&segment("sports"), at_the_end).await.unwrap(), 1);
    assert_eq!(estimator.estimate(&segment("news"), at_the_end).await.unwrap(), 0);
    let a_week_after_that = noon_plus(TWO_WEEKS / 2 + TWO_WEEKS);
    assert_eq!(estimator.estimate(&segment("sports"), a_week_after_that).await.unwrap(), 0);
}

#[tokio::test]
async fn record_of_an_earlier_visit_does_not_shorten_the_window() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    estimator.record(visit("u104010", "sports", NOON), NOON).await.unwrap();
    let earlier = visit("u104010", "sports", noon_plus(-TWO_WEEKS / 2));
    assert_eq!(estimator.record(earlier, NOON).await.unwrap(), Recorded::Accepted);

    assert_eq!(estimator.estimate(&segment("sports"), noon_plus(TWO_WEEKS - 1)).await.unwrap(), 1);
    let score: f64 = redis.call(&["ZSCORE", "segment:sports", "u104010"]);
    assert_eq!(score, NOON.as_score());
}

#[tokio::test]
async fn prune_removes_expired_members_that_no_longer_count() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    estimator.record(visit("old", "sports", NOON), NOON).await.unwrap();
    estimator.record(visit("new", "sports", noon_plus(1)), noon_plus(1)).await.unwrap();
    let members = || redis.call::<Vec<String>>(&["ZRANGE", "segment:sports", "0", "-1"]);

    let now = noon_plus(TWO_WEEKS);
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 1);
    assert_eq!(members(), ["old", "new"]);

    let report = estimator.prune(now).await.unwrap();
    assert_eq!((report.members_removed, report.names_dropped), (1, 0));
    assert_eq!(members(), ["new"]);
    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), 1);

    let report = estimator.prune(noon_plus(TWO_WEEKS + 1)).await.unwrap();
    assert_eq!((report.members_removed, report.names_dropped), (1, 1));
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn estimate_rejects_a_window_longer_than_the_configured_one() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    let longer = Window::parse("15d").unwrap();
    let refused = estimator.estimate_within(&segment("sports"), longer, NOON).await;
    assert!(matches!(refused, Err(Error::WindowTooLong(window)) if window == estimator.window()));
}
