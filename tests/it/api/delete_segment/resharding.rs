//! Deletions of segments during a resharding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rstest::rstest;
use segment_estimator::domain::{Estimate, Timestamp, UserId};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{DeletedSegment, Error, Phase, Resharding};

use super::delete;
use crate::api::backfill::{Backfill, complete_resharding};
use crate::helpers::{Redis, RedisCluster, Service, TestApp, binary, run, segment, success, visit};

fn now() -> Timestamp {
    Timestamp::now()
}

async fn delete_sports(estimator: &Estimator) -> DeletedSegment {
    estimator.delete_segment(&segment("sports"), false, now()).await.unwrap()
}

const fn known(count: u64) -> DeletedSegment {
    DeletedSegment { is_known: true, count: Estimate::exact(count) }
}

/// Returns the keys of sorted sets whose names contain `part`.
fn sets_like(redis: &Redis, part: &str) -> Vec<String> {
    redis.sets().into_iter().filter(|key| key.contains(part)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_during_the_backfill_is_kept() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let seen = now();
    let users: Vec<_> = (0..40).map(|n| format!("u{n}")).collect();
    let backfill = Backfill::begin(&redis, &users.iter().map(String::as_str).collect::<Vec<_>>(), seen).await;
    backfill.estimator.record(visit("u0", "news", seen), seen).await.unwrap();
    let page = backfill.read_page().await;
    // A part of the members is copied already. They count once.
    backfill.copy(&page).await;
    assert_eq!(delete_sports(&backfill.estimator).await, known(40));
    assert_eq!(sets_like(&redis, "sports"), [""; 0]);
    backfill.copy(&page).await;
    assert!(!sets_like(&redis, "sports").is_empty(), "the page brought the members back");
    let tombstones = sets_like(&redis, "forgotten");
    assert_eq!(tombstones.len(), 8, "one in each new partition");
    for key in tombstones {
        assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", &key, "0", "-1"]), [" sports"]);
        assert!((1..=14 * 24 * 60 * 60).contains(&redis.call::<i64>(&["TTL", &key])), "{key}");
    }
    // Users who are seen again, at an earlier, the same and a later time.
    for (user, offset) in [("u1", -60_000), ("u2", 0), ("u3", 1), ("new", 0)] {
        let again = Timestamp::from_millis(seen.as_millis() + offset);
        backfill.estimator.record(visit(user, "sports", again), now()).await.unwrap();
    }

    complete_resharding(&folder, &redis);
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 4);
    assert_eq!(backfill.estimator.estimate(&segment("news"), now()).await.unwrap(), 1);
    assert_eq!(sets_like(&redis, "forgotten"), [""; 0]);
    let user = UserId::parse("u1").unwrap();
    let memberships = backfill.estimator.segments_of(&user, now()).await.unwrap().memberships;
    assert_eq!(memberships[0].last_seen.as_millis(), seen.as_millis() - 60_000);
}

/// A visit that arrives between the deletions from the new and from the old keys is in one of them.
#[tokio::test(flavor = "multi_thread")]
async fn resharding_settles_visits_that_a_deletion_left_in_one_key_set() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let backfill = Backfill::begin(&redis, &["u1", "u2"], now()).await;
    assert_eq!(delete_sports(&backfill.estimator).await, known(2));
    backfill.estimator.record(visit("old-alone", "sports", now()), now()).await.unwrap();
    for key in sets_like(&redis, "}:segment:sports") {
        redis.call::<()>(&["DEL", &key]);
    }
    complete_resharding(&folder, &redis);
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn resharding_ignores_a_tombstone_of_a_key_of_another_program() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let backfill = Backfill::begin(&redis, &["u1"], now()).await;
    redis.call::<()>(&["SET", "segment:theirs", "theirs"]);
    let failed = backfill.estimator.delete_segment(&segment("theirs"), false, now()).await.unwrap_err();
    assert_eq!(failed, Error::ForeignKey("segment:theirs".to_owned()));
    assert_eq!(sets_like(&redis, "forgotten").len(), 8);
    complete_resharding(&folder, &redis);
    assert_eq!(redis.call::<String>(&["GET", "segment:theirs"]), "theirs");
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 1);
}

#[rstest]
#[case::text(&["SET", "theirs"])]
#[case::scores(&["ZADD", "7", "theirs"])]
#[tokio::test]
async fn delete_fails_on_and_keeps_a_foreign_tombstone_key(#[case] command: &[&str]) {
    let redis = Redis::start();
    let backfill = Backfill::begin(&redis, &["u1"], now()).await;
    redis.call::<()>(&[&command[..1], &["{p03}:forgotten"], &command[1..]].concat());
    let failed = backfill.estimator.delete_segment(&segment("sports"), false, now()).await.unwrap_err();
    assert_eq!(failed, Error::ForeignKey("{p03}:forgotten".to_owned()));
    assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 1, "nothing was deleted");
    assert_eq!(redis.call::<usize>(&["EXISTS", "{p03}:forgotten"]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_during_reshardings_of_a_cluster_is_kept() {
    const SEGMENTS: usize = 40;
    const USERS: usize = 100;
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    let visits: Vec<_> = (0..SEGMENTS * USERS)
        .map(|n| format!(r#"{{"user_id":"u{}","segment":"s{}"}}"#, n % USERS, n / USERS))
        .collect();
    success(service.post_lines(visits.join("\n")).await).await;
    let is_done = AtomicBool::new(false);
    let moving = async {
        for to in ["8", "32"] {
            let mut command = binary(folder.path());
            command.args(["repartition", "--to", to, "--redis-cluster", &cluster.urls()]);
            let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let deleting = async {
        let mut deleted = 0;
        while !is_done.load(Ordering::Relaxed) && deleted < SEGMENTS {
            assert_eq!(delete(&service, &format!("s{deleted}")).await, (true, USERS as u64), "s{deleted}");
            deleted += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        deleted
    };
    let ((), deleted) = tokio::join!(moving, deleting);
    assert!(deleted > 5, "{deleted} segments were deleted during the reshardings");
    for n in 0..SEGMENTS {
        let expected = if n < deleted { 0 } else { USERS as u64 };
        assert_eq!(service.count(&format!("s{n}")).await, expected, "s{n} of {deleted}");
    }
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_after_the_cutover_and_in_the_cleanup_needs_no_tombstone() {
    for phase in [Phase::Cutover, Phase::Cleanup] {
        let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
        let backfill = Backfill::begin(&redis, &["u1", "u2"], now()).await;
        backfill.copy(&backfill.read_page().await).await;
        let mut layout = backfill.layout;
        for next in [Phase::Cutover, Phase::Cleanup] {
            let step = Some(Resharding { to: backfill.new, phase: next });
            layout = backfill.store.change_layout(&layout, backfill.old, step).await.unwrap();
            if next == phase {
                break;
            }
        }
        // The estimator finds out that the layout has changed. Each user counts once.
        assert_eq!(delete_sports(&backfill.estimator).await, known(2), "{phase:?}");
        assert_eq!(sets_like(&redis, "forgotten"), [""; 0]);
        complete_resharding(&folder, &redis);
        assert_eq!(backfill.estimator.estimate(&segment("sports"), now()).await.unwrap(), 0, "{phase:?}");
        assert_eq!(sets_like(&redis, "sports"), [""; 0]);
    }
}

/// A service whose layout is from before the resharding.
#[tokio::test(flavor = "multi_thread")]
async fn delete_by_an_outdated_layout_is_repeated_and_counts_each_user_once() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let early = redis.estimator("14d");
    early.record(visit("u0", "sports", now()), now()).await.unwrap();
    let backfill = Backfill::begin(&redis, &["u1", "u2"], now()).await;
    let page = backfill.read_page().await;
    backfill.copy(&page).await;
    assert_eq!(delete_sports(&early).await, known(3));
    backfill.copy(&page).await;
    complete_resharding(&folder, &redis);
    assert_eq!(sets_like(&redis, "sports"), [""; 0]);
    assert_eq!(early.estimate(&segment("sports"), now()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_record_during_reshardings_are_kept() {
    const SEGMENTS: usize = 60;
    const USERS: usize = 200;
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let visits: Vec<_> = (0..SEGMENTS * USERS)
        .map(|n| format!(r#"{{"user_id":"u{}","segment":"s{}"}}"#, n % USERS, n / USERS))
        .collect();
    success(app.post_lines(visits.join("\n")).await).await;
    let is_done = AtomicBool::new(false);
    let moving = async {
        for to in ["8", "2", "16"] {
            let mut command = binary(folder.path());
            command.args(["repartition", "--to", to, "--redis-url", &redis.url()]);
            let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        is_done.store(true, Ordering::Relaxed);
    };
    // Every third deleted segment is visited again, by one user. A user of every other segment is removed.
    let deleting = async {
        let mut deleted = 0;
        while !is_done.load(Ordering::Relaxed) && deleted < SEGMENTS / 2 {
            let (name, other) = (format!("s{}", 2 * deleted), format!("s{}", 2 * deleted + 1));
            assert_eq!(delete(&app, &name).await, (true, USERS as u64));
            if deleted % 3 == 0 {
                app.record("u7", &name).await;
            }
            let removal = app.request("DELETE", &format!("/segments/{other}/users/u7")).send().await.unwrap();
            assert_eq!(removal.status(), 204);
            deleted += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        deleted
    };
    // A segment is deleted over and over, between its visits.
    let busy = async {
        let mut acknowledged = 0;
        while !is_done.load(Ordering::Relaxed) {
            app.record(&format!("busy{acknowledged}"), "busy").await;
            acknowledged += 1;
            if acknowledged % 20 == 0 {
                delete(&app, "busy").await;
            }
        }
        acknowledged % 20
    };
    let ((), deleted, busy) = tokio::join!(moving, deleting, busy);
    assert!(deleted > 5, "{deleted} segments were deleted during the reshardings");
    for n in 0..SEGMENTS {
        let expected = match (n % 2, n / 2 < deleted) {
            (0, true) => u64::from(n / 2 % 3 == 0),
            (1, true) => USERS as u64 - 1,
            _ => USERS as u64,
        };
        assert_eq!(app.count(&format!("s{n}")).await, expected, "s{n} of {deleted}");
    }
    assert_eq!(app.count("busy").await, busy);
}
